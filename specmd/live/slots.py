"""Slots: the device memory of the cache, allocated once, and what is known to lie in it.

Nothing is allocated or freed while the model runs, so the allocator can never hand out memory that
another stream still reads. A slot has a *generation*, one higher every time it is given to another
key. Whoever is told "key 7 lies in slot 3" is told the generation too, and shows it when using the
slot: an outdated map is an error and not a wrong token.

Beyond the slots of the cache there are a few *staging slots*, counted in its memory, for experts
that only pass through: those of an event wider than the cache, and those a policy refused.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from specmd.errors import SpecmdError
from specmd.models.layout import Layout

CANARY = 0xFF  # every float made of such bytes is a NaN


class Home(NamedTuple):
    """Where a key lies, or is about to."""

    slot: int
    generation: int


class Slots:
    """Preallocated slots on one device; `views[slot]` are the tensors of the expert in it.

    Args:
        layout: of an expert.
        cached: slots of the cache.
        staging: slots for what passes through; their numbers follow those of the cache.
        device: where the memory is.
        canary: overwrite a slot with NaN before another expert is copied in; for tests.

    """

    def __init__(
        self, layout: Layout, cached: int, staging: int, device: torch.device, *, canary: bool
    ) -> None:
        self.layout = layout
        self.cached, self.staging = cached, staging
        self.canary = canary
        self.num_bytes = (cached + staging) * layout.blob_bytes
        self.buffer = torch.zeros(
            (cached + staging, layout.blob_bytes), dtype=torch.uint8, device=device
        )
        self.blobs: list[Tensor] = list(self.buffer.unbind(0))
        self.views = [layout.views(blob) for blob in self.blobs]
        self.key_in = [-1] * (cached + staging)
        self.generation = [0] * (cached + staging)

    def assign(self, slot: int, key: int) -> Home:
        """Give a slot to a key; whatever it held is no longer there."""
        self.key_in[slot] = key
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
        self.views, self.blobs = [], []
        self.buffer = torch.empty(0, dtype=torch.uint8)
