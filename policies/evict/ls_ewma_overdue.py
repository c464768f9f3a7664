"""Least-Stale by interval: the key most overdue by its usual interval of reuse leaves first.

Overdue is the time since the last touch less the moving average of the intervals between uses (half
of the old, half of the new); a key used once has no interval and leaves before all others. So reads
hipfire's simulator (2026, `Policy::LeastStale`) SpecMD (arXiv:2602.03921), which found it far worse
than LRU. The history of a key outlives its eviction there, too.
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
    "ls_ewma_overdue",
    source="hipfire, after SpecMD, arXiv:2602.03921",
    remembers=True,
    compiled=True,
)
class Overdue(NamedTuple):
    """Time passes for all keys alike: the least `last touch + interval` is the most overdue."""

    heap: Heap
    used: IntArray  # (keys,) clock of the last use; 0 never
    interval: FloatArray  # (keys,) mean interval between uses; 0 unknown

    @classmethod
    def create(cls, world: World) -> Overdue:
        """Build the empty heap."""
        used = np.zeros(world.num_keys, np.int64)
        return cls(make_heap(world), used, np.zeros(world.num_keys))

    def on_event(self, event: Event) -> None:
        """Learn the intervals that end now."""
        for i in range(event.start, event.stop):
            key = event.keys[i]
            gap = event.clock - self.used[key]
            if self.used[key] > 0:
                before = self.interval[key]
                self.interval[key] = gap if before == 0.0 else 0.5 * before + 0.5 * gap
            self.used[key] = event.clock

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Rank anew."""
        settle_rank(self.heap, pool, key, expected(self, key, event), 0)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter."""
        put(self.heap, pool, key, expected(self, key, event), 0)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave the heap."""
        drop(self.heap, pool, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose the most overdue."""
        return least_evictable(self.heap, pool, core)


def expected(policy: Overdue, key: int, event: Event) -> float:
    """Return when a key touched now is due again; at once if it was used but once."""
    return event.clock + policy.interval[key] if policy.interval[key] > 0.0 else -1.0
