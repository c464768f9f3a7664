"""LRU: the key touched longest ago leaves first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.order.lists import Lists, make_lists, place_ordered, unlink
from specmd.policy.event import NOBODY, Event, IntArray, World
from specmd.residency import Core, evictable


class LRU(NamedTuple):
    recency: Lists
    last: IntArray
    pool: IntArray

    @classmethod
    def create(cls, world: World) -> LRU:
        return cls(make_lists(world.num_keys, world.pools), np.zeros(world.num_keys, np.int64), (np.arange(world.num_keys)//world.keys_per_pool).astype(np.uint32))

    def on_use(self, key: int, event: Event) -> None:
        unlink(self.recency, key)
        place_ordered(self.recency, self.pool[key], key, self.last, event.clock)

    def on_insert(self, key: int, event: Event) -> None:
        place_ordered(self.recency, self.pool[key], key, self.last, event.clock)

    def on_prefetch(self, key: int, event: Event) -> None:
        place_ordered(self.recency, self.pool[key], key, self.last, event.clock)

    def on_evict(self, key: int, event: Event) -> None:
        unlink(self.recency, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        end = self.recency.size + pool
        key = self.recency.prev[end]
        while key != end and not evictable(core, key):
            key = self.recency.prev[key]
        return NOBODY if key == end else key
