"""Slots: the device memory of the cache, allocated once, and what is known to lie in it.

Nothing is allocated or freed while the model runs, so the allocator can never hand out memory that
another stream still reads. A slot has a *generation*, one higher every time it is given to another
key. Whoever is told "key 7 lies in slot 3" is told the generation too, and shows it when using the
slot: an outdated map is an error and not a wrong token.

A slot of the cache belongs to a pool (`specmd.runs.pools`) and is as large as the largest expert of
the layers that the pool serves: where layers differ in the bytes of an expert, slots come in size
classes. Beyond them there are a few *staging slots*, counted in the memory, for experts that only
pass through: those of an event wider than the cache, and those a policy refused. Any expert fits
into one of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from specmd.errors import SpecmdError
from specmd.models.layout import Layout, Layouts
from specmd.models.low_bit import LowBit

CANARY = 0xFF  # every float made of such bytes is a NaN


class Home(NamedTuple):
    """Where a key lies, or is about to."""

    slot: int
    generation: int


class Slots:
    """Preallocated slots on one device.

    Args:
        layouts: of the experts.
        capacity: (pools,) slots of the cache, numbered pool after pool.
        staging: slots for what passes through; their numbers follow those of the cache.
        device: where the memory is.
        canary: overwrite a slot with NaN before another expert is copied in; for tests.
        of_layer: (layers,) the pool that serves a layer; without it, one serves all.
        low: (layers,) how copies of few bits lie in a slot; nothing where there are none.

    Attributes:
        views: by layer and slot, the tensors of an expert of the layer in the slot, by name; none
            where it never lies.
        is_low: by slot, whether it holds, or is about to, a copy of few bits.

    """

    def __init__(
        self,
        layouts: Layouts,
        capacity: Sequence[int],
        staging: int,
        device: torch.device,
        *,
        canary: bool,
        of_layer: Sequence[int] | None = None,
        low: tuple[LowBit, ...] = (),
    ) -> None:
        self.layouts, self.low = layouts, low
        self.cached, self.staging = sum(capacity), staging
        self.canary = canary
        served = list(zip(layouts.of_layer, of_layer or [0] * len(layouts.of_layer), strict=True))
        slot_bytes = [0] * len(capacity)
        for layout, pool in served:
            slot_bytes[pool] = max(slot_bytes[pool], layout.blob_bytes)
        pools = [pool for pool, slots in enumerate(capacity) for _ in range(slots)]
        sizes = [slot_bytes[pool] for pool in pools] + [layouts.largest_bytes] * staging
        self.num_bytes = sum(sizes)
        self.buffer = torch.zeros(self.num_bytes, dtype=torch.uint8, device=device)
        self.blobs: list[Tensor] = list(torch.split(self.buffer, sizes))
        owners = [*pools, *[None] * staging]

        def views(served: list[tuple[Layout, int]]) -> list[list[dict[str, Tensor]]]:
            made = {
                (layout, pool): [
                    layout.views(blob) if own in (pool, None) else {}
                    for blob, own in zip(self.blobs, owners, strict=True)
                ]
                for layout, pool in set(served)
            }
            return [made[each] for each in served]

        self.views = views(served)
        packed = zip(low, (pool for _, pool in served), strict=False)
        self._low_views = views([(each.packed, pool) for each, pool in packed])
        self.is_low = [False] * len(sizes)
        self.key_in = [-1] * len(sizes)
        self.generation = [0] * len(sizes)

    def num_bytes_of(self, key: int, low: bool) -> int:
        """Bytes of a key, or of its copy of few bits, in a slot."""
        layout = self.low[key // self.layouts.experts].packed if low else self.layouts.of(key)
        return layout.blob_bytes

    def tensors(self, key: int, slot: int) -> dict[str, Tensor]:
        """Tensors of the expert that lies in a slot; those of a copy of few bits are made anew."""
        layer = key // self.layouts.experts
        if self.is_low[slot]:
            return self.low[layer].unpack(self._low_views[layer][slot])
        return self.views[layer][slot]

    def assign(self, slot: int, key: int, *, low: bool = False) -> Home:
        """Give a slot to a key; whatever it held is no longer there."""
        self.key_in[slot], self.is_low[slot] = key, low
        self.generation[slot] += 1
        return Home(slot, self.generation[slot])

    def check(self, key: int, home: Home) -> None:
        """Raise SpecmdError unless the key still lies where a map says it does."""
        if self.key_in[home.slot] != key or self.generation[home.slot] != home.generation:
            raise SpecmdError(
                f"stale map: expert {key} was in slot {home.slot} (generation {home.generation}), "
                f"which now holds expert {self.key_in[home.slot]} (generation "
                f"{self.generation[home.slot]}); this is a bug of specmd, please report it"
            )

    def close(self) -> None:
        """Let go of the memory."""
        self.views, self._low_views, self.blobs = [], [], []
        self.buffer = torch.empty(0, dtype=torch.uint8)
