"""Heat-protected LRU: of keys hit at most `hot` times in this stay, the least recent leaves first.

Only where all are hotter does a hot one leave, the least recent. The rule of a llama.cpp fork
(github.com/TheTom/llama-cpp-turboquant pull request 300, 2026-08-17, `HOT_USES` = 4): a slot counts
hits since it was filled. `hot=0` protects nothing: that is LRU.
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
    Width,
    World,
    evictable,
    make_lists,
    place_ordered,
    policy,
    unlink,
)


@policy("heat", source="TheTom/llama-cpp-turboquant pull request 300", compiled=True)
class Heat(NamedTuple):
    """Keys by last touch, the latest at the front, and hits since they entered."""

    recency: Lists
    last: IntArray
    hits: IntArray
    hot: int

    @classmethod
    def create(cls, world: World, *, hot: Width = 4) -> Heat:
        """Build the empty order."""
        numbers = np.zeros(world.num_keys, np.int64)
        lists = make_lists(world.num_keys, world.pools)
        return cls(lists, numbers, numbers.copy(), hot if hot > 0 else 1 << 62)

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Count the hit and move to the front."""
        self.hits[key] += 1
        unlink(self.recency, key)
        place_ordered(self.recency, pool, key, self.last, event.clock)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter cold, at the front."""
        self.hits[key] = 0
        place_ordered(self.recency, pool, key, self.last, event.clock)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave the order."""
        unlink(self.recency, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Go from the back to the first that is not hot; else take the last of the hot."""
        end = self.recency.size + pool
        key, spare = self.recency.prev[end], NOBODY
        while key != end:
            if evictable(core, key):
                if self.hits[key] <= self.hot:
                    return key
                if spare == NOBODY:
                    spare = key
            key = self.recency.prev[key]
        return spare
