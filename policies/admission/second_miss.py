"""Second miss: a key enters when it is missed again within so many steps of its last miss.

The doorkeeper of web caches, which keep what is asked for once out of their disks (B. M. Maggs,
R. K. Sitaraman, "Algorithmic nuggets in content delivery", ACM SIGCOMM CCR 45(3), 2015, section 3).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import Core, Event, IntArray, Width, World, policy


@policy(
    "second_miss",
    axis="admission",
    source="Maggs and Sitaraman, SIGCOMM CCR 45(3), 2015",
    remembers=True,
    compiled=True,
)
class SecondMiss(NamedTuple):
    """Steps of the last misses."""

    missed: IntArray  # (keys,) step of the last miss, -1 never
    within: int

    @classmethod
    def create(cls, world: World, *, within: Width = 32) -> SecondMiss:
        """Build it; `within` is in steps, 0 lets every miss in."""
        return cls(np.full(world.num_keys, -1, np.int64), within)

    def admits(self, key: int, pool: int, core: Core, event: Event) -> bool:
        """Let in what was missed not long ago."""
        before = self.missed[key]
        self.missed[key] = event.step
        return self.within == 0 or (before >= 0 and event.step - before <= self.within)
