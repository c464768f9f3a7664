"""An expert store of random bytes: what a checkpoint would hold, without one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor

from specmd.hardware.memory import require_memory
from specmd.live.stores.pinning import Pinned, pin
from specmd.live.stores.store import ArenaStore
from specmd.models.dummy.noise import Noise
from specmd.models.layout import Layouts


class RandomStore(ArenaStore):
    """Every expert's bytes in host memory, all different, no value NaN or infinite.

    Args:
        layouts: of the experts.
        pinned_budget_bytes: how much may be locked; None is no limit, 0 nothing.
        pin: pins an arena.
        other_bytes: of memory that will be asked for after the store and must fit, too.
        seed: of the values.

    Raises:
        SpecmdError: it does not fit into memory.

    """

    def __init__(
        self,
        layouts: Layouts,
        *,
        pinned_budget_bytes: int | None = None,
        pin: Callable[[Tensor], Pinned] = pin,
        other_bytes: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(layouts, pinned_budget_bytes=pinned_budget_bytes, pin=pin)
        layer_bytes = [layouts.experts * layout.blob_bytes for layout in layouts.of_layer]
        require_memory(layer_bytes, other_bytes, "a store of experts")
        noises: dict[torch.dtype, Noise] = {}
        for piece in chain.from_iterable(layout.pieces for layout in layouts.of_layer):
            if piece.dtype not in noises:
                noises[piece.dtype] = Noise(seed, piece.dtype)
        for layout in layouts.of_layer:
            for blob in self.add_layer():
                for piece in layout.pieces:
                    noises[piece.dtype].fill(piece.view(blob))
