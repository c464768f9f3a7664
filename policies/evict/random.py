"""Random: any key that may leave, each with the same chance. The control every policy must beat.

L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems
Journal 5(2), 1966.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    NOBODY,
    READY,
    Core,
    Event,
    IntArray,
    KeyArray,
    World,
    below,
    evictable,
    policy,
)

TRIES = 64


@policy("random", source="Belady, IBM Systems Journal 5(2), 1966", compiled=True)
class Random(NamedTuple):
    """Counts its draws; draws depend on the seed and on the count alone."""

    draws: IntArray
    members: KeyArray  # (keys,) by pool
    first: IntArray  # (pools + 1,) where those of each pool begin
    seed: int

    @classmethod
    def create(cls, world: World) -> Random:
        """Start counting draws."""
        members = np.argsort(world.pool, kind="stable").astype(np.uint32)
        first = np.append(0, np.cumsum(np.bincount(world.pool, minlength=world.pools)))
        return cls(np.zeros(1, np.int64), members, first.astype(np.int64), world.seed)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Draw slots until one holds a key that may leave; then search from a drawn key on."""
        first, slots = core.first_slot[pool], core.first_slot[pool + 1] - core.first_slot[pool]
        if slots > 0 and incoming != NOBODY:
            for _ in range(TRIES):
                self.draws[0] += 1
                key = core.key_in[first + below(slots, self.seed, self.draws[0])]
                if key != NOBODY and evictable(core, key):
                    return key
        start, span = self.first[pool], self.first[pool + 1] - self.first[pool]
        self.draws[0] += 1
        offset = below(span, self.seed, self.draws[0])
        for i in range(span):
            key = self.members[start + (offset + i) % span]
            if core.state[key] == READY and evictable(core, key):
                return key
        return NOBODY
