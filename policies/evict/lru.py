"""LRU: the key touched longest ago leaves first.

R. L. Mattson, J. Gecsei, D. R. Slutz, I. L. Traiger, "Evaluation techniques for storage
hierarchies", IBM Systems Journal 9(2), 1970. The clock ticks once an event.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    Core,
    Event,
    IntArray,
    Lists,
    World,
    last_evictable,
    make_lists,
    place_ordered,
    policy,
    unlink,
)


@policy("lru", source="Mattson et al., IBM Systems Journal 9(2), 1970", compiled=True)
class LRU(NamedTuple):
    """Keys by last touch, the latest at the front."""

    recency: Lists
    last: IntArray

    @classmethod
    def create(cls, world: World) -> LRU:
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
        """Choose from the back."""
        return last_evictable(self.recency, pool, core)
