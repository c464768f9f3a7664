"""Insert cap: so many keys enter a step at most; the misses after them stream through.

It bounds what a step writes into the cache, whatever it misses (llama.cpp pull request 27861,
https://github.com/ggml-org/llama.cpp).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import Core, Count, Event, IntArray, World, policy


@policy("insert_cap", axis="admission", source="llama.cpp pull request 27861", compiled=True)
class InsertCap(NamedTuple):
    """How many have entered."""

    entered: IntArray  # (2,) step, keys let in so far
    most: int

    @classmethod
    def create(cls, world: World, *, most: Count = 8) -> InsertCap:
        """Build it; `most` is keys a step."""
        return cls(np.array([-1, 0], np.int64), most)

    def admits(self, key: int, pool: int, core: Core, event: Event) -> bool:
        """Let in until the step's cap is reached."""
        if self.entered[0] != event.step:
            self.entered[0] = event.step
            self.entered[1] = 0
        self.entered[1] += 1
        return self.entered[1] <= self.most
