"""Least-Stale in two generations, by last access: stale keys first, of each the oldest.

A key is stale if it was not touched in the present step. This is how moe-cache-eval reads SpecMD
(github.com/shijiuzhang/moe-cache-eval at f7bacc2, `LeastStalePolicy`), and says that it should be
close to LRU. It *is* LRU: whatever is stale was touched before whatever is current.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import Event, IntArray, World, policy

CURRENT = 1 << 40  # above any clock


@policy("ls_2gen_access", source="moe-cache-eval, after SpecMD, arXiv:2602.03921", compiled=True)
class TwoGenerationsByAccess(NamedTuple):
    """Clock and step of the last touch."""

    last: IntArray  # (keys,)
    step: IntArray  # (keys,)

    @classmethod
    def create(cls, world: World) -> TwoGenerationsByAccess:
        """Build stamps for all keys."""
        return cls(np.zeros(world.num_keys, np.int64), np.zeros(world.num_keys, np.int64))

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Stamp."""
        self.last[key] = event.clock
        self.step[key] = event.step

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Stamp."""
        self.last[key] = event.clock
        self.step[key] = event.step

    def rank(self, key: int, event: Event) -> float:
        """Rank by last touch, and the stale below the current."""
        return self.last[key] + CURRENT * (self.step[key] == event.step)
