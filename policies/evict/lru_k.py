"""LRU-K: the key whose k-th last use is the oldest leaves first; before it, those of fewer uses.

E. J. O'Neil, P. E. O'Neil, G. Weikum, SIGMOD 1993. Uses in one event are one; those of the last
`ghosts` * C keys that left are kept. Ties: the last touch. A prefetched key ranks as if used now.
"""

from typing import NamedTuple, Self

import numpy as np

from specmd.policy import (
    NOBODY,
    NOWHERE,
    Core,
    Count,
    Event,
    FloatArray,
    Heap,
    Queues,
    World,
    depart,
    drop,
    least_evictable,
    make_heap,
    make_queues,
    make_way,
    move,
    policy,
    put,
    settle_rank,
)


@policy("lru_k", source="O'Neil, O'Neil and Weikum, SIGMOD 1993", remembers=True, compiled=True)
class LRUK(NamedTuple):
    """The last k uses of each key, the latest first, and which keys left lately."""

    heap: Heap
    ghosts: Queues
    times: FloatArray  # (keys * k,) clocks, 0 for none
    k: int

    @classmethod
    def create(cls, world: World, *, k: Count = 2, ghosts: Count = 2) -> Self:
        """Build the empty heap."""
        return cls(make_heap(world), make_queues(world, 1, ghosts), np.zeros(world.num_keys * k), k)

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Note the use."""
        settle_rank(self.heap, pool, key, note(self, key, event.clock), event.clock)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter with the earlier uses that are remembered."""
        move(self.ghosts, pool, key, NOWHERE)
        put(self.heap, pool, key, note(self, key, event.clock), event.clock)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter with the rank that a use would give."""
        move(self.ghosts, pool, key, NOWHERE)
        rank = self.times[key * self.k + self.k - 2] if self.k > 1 else event.clock
        put(self.heap, pool, key, rank, event.clock)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave, and be remembered for a while."""
        drop(self.heap, pool, key)
        gone = depart(self.ghosts, pool, key, 0 if self.times[key * self.k] else NOWHERE)
        for i in range(0 if gone == NOBODY else self.k):
            self.times[gone * self.k + i] = 0

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose the oldest k-th last use."""
        return make_way(self.ghosts, pool, incoming, least_evictable(self.heap, pool, core))


def note(policy: LRUK, key: int, now: int) -> float:
    """Note a use; return when the k-th last was."""
    for i in range((key + 1) * policy.k - 1, key * policy.k, -1):
        policy.times[i] = policy.times[i - 1]
    policy.times[key * policy.k] = now
    return policy.times[(key + 1) * policy.k - 1]
