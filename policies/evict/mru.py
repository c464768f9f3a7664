"""MRU: the key touched last leaves first; the classical answer to a cyclic scan.

H.-T. Chou and D. J. DeWitt, "An evaluation of buffer management strategies for relational database
systems", VLDB 1985.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    NOBODY,
    Core,
    Event,
    IntArray,
    Lists,
    World,
    evictable,
    make_lists,
    place_ordered,
    policy,
    unlink,
)


@policy("mru", source="Chou and DeWitt, VLDB 1985", compiled=True)
class MRU(NamedTuple):
    """Keys by last touch, the latest at the front; equal touches by ascending key."""

    recency: Lists
    last: IntArray

    @classmethod
    def create(cls, world: World) -> MRU:
        """Build the empty order."""
        last = np.zeros(world.num_keys, np.int64)
        return cls(make_lists(world.num_keys, world.pools), last)

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Move to the front."""
        unlink(self.recency, key)
        place_ordered(self.recency, pool, key, self.last, event.clock)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter at the front."""
        place_ordered(self.recency, pool, key, self.last, event.clock)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave the order."""
        unlink(self.recency, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose the latest touch and, of equal ones, the largest key."""
        end = self.recency.size + pool
        best = NOBODY
        key = self.recency.next[end]
        while key != end and (best == NOBODY or self.last[key] == self.last[best]):
            if evictable(core, key):
                best = key
            key = self.recency.next[key]
        return best
