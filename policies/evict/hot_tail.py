"""Hot tail: a share of the slots is pinned for the keys most used in *training*, the rest is LRU.

The pinned ones are resident from the start and for ever, as the hot sets of Fiddler
(arXiv:2402.07033) or BigMoeOnEdge are; the others come and go. `share=0` is LRU; with `share=1`
what is not pinned streams through, as with `static`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    Core,
    Event,
    IntArray,
    KeyArray,
    Lists,
    Share,
    World,
    last_evictable,
    make_lists,
    place_ordered,
    policy,
    unlink,
)


@policy("hot_tail", source="pins and LRU tail", needs=["training"], pins=True, compiled=True)
class HotTail(NamedTuple):
    """The pinned keys, and the others by last touch, the latest at the front."""

    kept: KeyArray  # (pinned,)
    pinned: IntArray  # (keys,) 1 for those
    recency: Lists
    last: IntArray

    @classmethod
    def create(cls, world: World, *, share: Share = 0.5) -> HotTail:
        """Pin the most popular keys of each pool, of equals the smaller key."""
        order = np.argsort(-world.popularity, kind="stable").astype(np.uint32)
        room = (world.capacity * share).astype(np.int64)
        kept = np.concatenate([order[world.pool[order] == p][:n] for p, n in enumerate(room)])
        pinned = np.zeros(world.num_keys, np.int64)
        pinned[kept] = 1
        lists = make_lists(world.num_keys, world.pools)
        return cls(kept, pinned, lists, np.zeros(world.num_keys, np.int64))

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Move to the front."""
        if not self.pinned[key]:
            unlink(self.recency, key)
            place_ordered(self.recency, pool, key, self.last, event.clock)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter at the front."""
        place_ordered(self.recency, pool, key, self.last, event.clock)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave the order."""
        unlink(self.recency, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose the least recent of what is not pinned."""
        return last_evictable(self.recency, pool, core)
