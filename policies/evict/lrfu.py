"""LRFU: uses fade by half every `1 / decay` events; the key with the least left leaves first.

D. Lee et al., "LRFU: a spectrum of policies that subsumes the least recently used and least
frequently used policies", IEEE Transactions on Computers 50(12), 2001. Between two touches all
scores fade alike, so `log2(score) + decay * last` orders keys without being updated.
"""

from __future__ import annotations

from math import log2
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from specmd.policy import (
    Core,
    Event,
    FloatArray,
    Heap,
    IntArray,
    KeyArray,
    World,
    drop,
    least_evictable,
    make_heap,
    policy,
    put,
    settle_rank,
)


@policy("lrfu", source="Lee et al., IEEE Transactions on Computers 50(12), 2001", compiled=True)
class LRFU(NamedTuple):
    """The combined recency and frequency of each key, as of its last use."""

    heap: Heap
    score: FloatArray
    last: IntArray
    pool: KeyArray
    decay: float

    @classmethod
    def create(cls, world: World, *, decay: Annotated[float, Field(gt=0, le=1)] = 0.05) -> LRFU:
        """Build the empty heap."""
        heap, keys = make_heap(world.num_keys, world.pools), world.num_keys
        return cls(heap, np.zeros(keys), np.zeros(keys, np.int64), world.pool, decay)

    def on_event(self, event: Event) -> None:
        """Add one use to what is left of the earlier ones."""
        for i in range(event.start, event.stop):
            key = event.keys[i]
            age = event.clock - self.last[key]
            self.score[key] = 1.0 + self.score[key] * 2.0 ** (-self.decay * age)
            self.last[key] = event.clock

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Rank by the new score."""
        rank = log2(self.score[key]) + self.decay * self.last[key]
        settle_rank(self.heap, pool, key, rank, event.clock)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter with the score so far."""
        rank = log2(self.score[key]) + self.decay * self.last[key]
        put(self.heap, pool, key, rank, event.clock)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter as if used now, without counting a use."""
        put(self.heap, pool, key, self.decay * event.clock, event.clock)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave the heap; the score stays known."""
        drop(self.heap, pool, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose the least score."""
        return least_evictable(self.heap, pool, core)
