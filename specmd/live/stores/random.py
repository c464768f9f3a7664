"""An expert store of random bytes: what a checkpoint would hold, without one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from specmd.hardware.memory import require_memory
from specmd.live.stores.pinning import Pinned, pin
from specmd.live.stores.store import ArenaStore
from specmd.models.dummy.noise import Noise
from specmd.models.layout import Layout


class RandomStore(ArenaStore):
    """Every expert's bytes in host memory, all different, no value NaN or infinite.

    Args:
        layout: of an expert.
        experts: E, experts of a layer.
        num_layers: MoE layers.
        pinned_budget_bytes: how much may be locked; None is no limit, 0 nothing.
        pin: pins an arena.
        other_bytes: of memory that will be asked for after the store and must fit, too.
        seed: of the values.

    Raises:
        SpecmdError: it does not fit into memory.

    """

    def __init__(
        self,
        layout: Layout,
        experts: int,
        num_layers: int,
        *,
        pinned_budget_bytes: int | None = None,
        pin: Callable[[Tensor], Pinned] = pin,
        other_bytes: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            layout, experts, num_layers, pinned_budget_bytes=pinned_budget_bytes, pin=pin
        )
        require_memory(experts * layout.blob_bytes, num_layers, other_bytes, "a store of experts")
        noises: dict[torch.dtype, Noise] = {}
        for piece in layout.pieces:
            noises.setdefault(piece.dtype, Noise(seed, piece.dtype))
        for _ in range(num_layers):
            for blob in self.add_layer():
                for piece in layout.pieces:
                    noises[piece.dtype].fill(piece.view(blob))
