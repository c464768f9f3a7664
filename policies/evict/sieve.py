"""SIEVE: a hand sweeps from the oldest key; a key used since the last sweep stays where it is.

Y. Zhang et al., "SIEVE is simpler than LRU: an efficient turn-key eviction algorithm for web
caches", NSDI 2024. A held key is passed over like a used one. The first use of a prefetched key is
its only one so far, as a miss would have been: it marks nothing.
"""

from typing import NamedTuple, Self

import numpy as np

from specmd.policy import (
    NOBODY,
    Core,
    Event,
    KeyArray,
    Lists,
    World,
    evictable,
    make_lists,
    policy,
    push_front,
    unlink,
)


@policy("sieve", source="Zhang et al., NSDI 2024", compiled=True)
class Sieve(NamedTuple):
    """Keys by arrival, the latest at the front, and where the hand stands."""

    arrival: Lists
    visited: KeyArray  # (keys,) 1 if used since the hand passed
    unused: KeyArray  # (keys,) 1 if prefetched and not used so far
    hand: KeyArray  # (pools,) next node to look at; a pool's sentinel stands for its back

    @classmethod
    def create(cls, world: World) -> Self:
        """Build the empty queue."""
        hand = np.arange(world.num_keys, world.num_keys + world.pools, dtype=np.uint32)
        visited = np.zeros(world.num_keys, np.uint32)
        lists = make_lists(world.num_keys, world.pools)
        return cls(lists, visited, visited.copy(), hand)

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Mark as visited, from the second use on."""
        self.visited[key], self.unused[key] = 1 - self.unused[key], 0

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter at the front, not visited."""
        self.visited[key], self.unused[key] = 0, 0
        push_front(self.arrival, pool, key)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter at the front, not visited."""
        self.visited[key], self.unused[key] = 0, 1
        push_front(self.arrival, pool, key)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave the queue; the hand moves on to the next newer key."""
        if self.hand[pool] == key:
            self.hand[pool] = self.arrival.prev[key]
        unlink(self.arrival, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Sweep towards the front and around; after two rounds nobody may leave."""
        end = self.arrival.size + pool
        key = self.hand[pool]
        rounds = 0
        while rounds < 3:
            if key == end:
                rounds += 1
            elif self.visited[key] == 0 and evictable(core, key):
                self.hand[pool] = key
                return key
            else:
                self.visited[key] = 0
            key = self.arrival.prev[key]
        return NOBODY
