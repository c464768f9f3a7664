"""TinyLFU: a key enters if it has been used more often, of late, than the one that would leave.

G. Einziger, R. Friedman, B. Manes, "TinyLFU: a highly efficient cache admission policy", ACM
Transactions on Storage 13(4), 2017, sections 3.1 (admission) and 3.3 (reset): all counts are halved
once `sample` uses a slot have been counted. Experts are few, so counts are kept exactly, where the
paper keeps a sketch. The key that would leave is the eviction policy's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import Core, Count, Event, IntArray, World, policy


@policy(
    "tinylfu",
    axis="admission",
    source="Einziger, Friedman and Manes, ACM TOS 13(4), 2017",
    remembers=True,
    compiled=True,
)
class TinyLFU(NamedTuple):
    """Use counts of all keys."""

    uses: IntArray  # (keys,)
    counted: IntArray  # (1,) since the last halving
    window: int

    @classmethod
    def create(cls, world: World, *, sample: Count = 10) -> TinyLFU:
        """Build it; `sample` is in uses for each slot of the cache."""
        window = sample * int(world.capacity.sum())
        return cls(np.zeros(world.num_keys, np.int64), np.zeros(1, np.int64), window)

    def observe(self, event: Event) -> None:
        """Count a use of each key of U; halve all counts when the sample is full."""
        for i in range(event.start, event.stop):
            self.uses[event.keys[i]] += 1
        self.counted[0] += event.stop - event.start
        if self.counted[0] >= self.window:
            for key in range(len(self.uses)):
                self.uses[key] //= 2
            self.counted[0] //= 2

    def outweighs(self, key: int, leaving: int, core: Core, event: Event) -> bool:
        """Compare the counts; of equals the resident stays."""
        return self.uses[key] > self.uses[leaving]
