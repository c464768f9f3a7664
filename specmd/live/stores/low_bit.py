"""The copies of few bits of all experts, in host memory beside the experts themselves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from specmd.live.stores.pinning import Pinned, pin
from specmd.live.stores.store import ArenaStore, ExpertStore
from specmd.models.layout import Layouts
from specmd.models.low_bit import LowBit


class LowBitStore(ArenaStore):
    """Copies of the experts of a store, made once.

    Args:
        store: the experts, whole.
        low: by layer, how their copies lie in memory.
        pinned_budget_bytes: how much may be locked, with the store; None is no limit.
        pin: pins an arena.

    """

    def __init__(
        self,
        store: ExpertStore,
        low: tuple[LowBit, ...],
        pinned_budget_bytes: int | None = None,
        *,
        pin: Callable[[Tensor], Pinned] = pin,
    ) -> None:
        layouts = Layouts(tuple(each.packed for each in low), store.layouts.experts)
        left = pinned_budget_bytes
        if left is not None:
            left = max(0, left - store.locked_bytes)
        super().__init__(layouts, pinned_budget_bytes=left, pin=pin)
        with torch.no_grad():
            for number, each in enumerate(low):
                for expert, copy in enumerate(self.add_layer()):
                    each.pack(store.whole(number * layouts.experts + expert), copy)
