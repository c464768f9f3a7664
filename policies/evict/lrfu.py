"""LRFU: uses fade by half every `1 / decay` events; the key with the least left leaves first.

D. Lee et al., "LRFU: a spectrum of policies that subsumes the least recently used and least
frequently used policies", IEEE Transactions on Computers 50(12), 2001. As there, the score of a key
that left starts anew when it comes back; `resident=false` keeps it (below the working set of a step
no key stays long enough to earn one). Between two touches all scores fade alike, so
`log2(score) + decay * last` orders keys without being updated.
"""

from math import log2
from typing import NamedTuple, Self

import numpy as np

from specmd.policy import (
    Core,
    Event,
    FloatArray,
    Heap,
    IntArray,
    Share,
    World,
    drop,
    least_evictable,
    make_heap,
    policy,
    put,
    settle_rank,
)


@policy(
    "lrfu", source="Lee et al., IEEE TC 50(12), 2001", remembers="resident=false", compiled=True
)
class LRFU(NamedTuple):
    """The combined recency and frequency of each key, as of its last use."""

    heap: Heap
    score: FloatArray
    last: IntArray
    decay: float
    resident: int

    @classmethod
    def create(cls, world: World, *, decay: Share = 0.05, resident: bool = True) -> Self:
        """Build the empty heap."""
        score, last = np.zeros(world.num_keys), np.zeros(world.num_keys, np.int64)
        return cls(make_heap(world), score, last, decay, int(resident))

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Rank by the new score."""
        settle_rank(self.heap, pool, key, add_use(self, key, event.clock), event.clock)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter with this use, and with what is left of those before if they are kept."""
        put(self.heap, pool, key, add_use(self, key, event.clock), event.clock)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter as if used now, without counting a use."""
        put(self.heap, pool, key, self.decay * event.clock, event.clock)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave the heap, and forget the uses if they are of residents only."""
        drop(self.heap, pool, key)
        if self.resident:
            self.score[key] = 0.0

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose the least score."""
        return least_evictable(self.heap, pool, core)


def add_use(policy: LRFU, key: int, now: int) -> float:
    """Add a use to what is left of the earlier ones; return the rank."""
    age = now - policy.last[key]
    policy.score[key] = 1.0 + policy.score[key] * 2.0 ** (-policy.decay * age)
    policy.last[key] = now
    return log2(policy.score[key]) + policy.decay * now
