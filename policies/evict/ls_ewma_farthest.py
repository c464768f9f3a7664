"""Least-Stale by forecast: the key expected back latest leaves first.

Expected is the last touch plus the mean interval of reuse in this stay, at least 1: the first
interval, then 3/4 of the old and 1/4 of the new. Of equals the latest touched leaves. So reads an
analyser of Qwen3.5 traces SpecMD (arXiv:2602.03921, `_online_policy_replay`; the same rule is
called the true one in another program's tests). Its sign is the opposite of `ls_ewma_overdue`: a
key that is overdue never leaves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    Core,
    Event,
    FloatArray,
    Heap,
    IntArray,
    World,
    drop,
    least_evictable,
    make_heap,
    policy,
    put,
    settle_rank,
)


@policy(
    "ls_ewma_farthest", source="a Qwen3.5 trace analyser, after arXiv:2602.03921", compiled=True
)
class Farthest(NamedTuple):
    """Keys by the clock of their expected use, the latest first."""

    heap: Heap
    used: IntArray  # (keys,) clock of the last use in this stay; 0 none
    interval: FloatArray  # (keys,) mean interval in this stay; 0 unknown

    @classmethod
    def create(cls, world: World) -> Farthest:
        """Build the empty heap."""
        used = np.zeros(world.num_keys, np.int64)
        return cls(make_heap(world), used, np.zeros(world.num_keys))

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Learn the interval that ends now, and rank anew."""
        if self.used[key] > 0:
            gap, before = event.clock - self.used[key], self.interval[key]
            self.interval[key] = gap if before == 0.0 else 0.75 * before + 0.25 * gap
        self.used[key] = event.clock
        expected = event.clock + max(self.interval[key], 1.0)
        settle_rank(self.heap, pool, key, -expected, -event.clock)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter with this use, and with no interval."""
        self.used[key], self.interval[key] = event.clock, 0.0
        put(self.heap, pool, key, -(event.clock + 1.0), -event.clock)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter without a use."""
        self.used[key], self.interval[key] = 0, 0.0
        put(self.heap, pool, key, -(event.clock + 1.0), -event.clock)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave the heap."""
        drop(self.heap, pool, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose the latest expected."""
        return least_evictable(self.heap, pool, core)
