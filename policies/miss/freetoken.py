"""FreeToken: the link takes a share of the misses, by its bandwidth; the host does the rest.

FreeToken's split, as the project's design notes describe it: of m misses, m times the link's
bandwidth over that of the host's memory are fetched (rounded), in the order in which they would be,
and the others are computed where they are. Both bandwidths come from the hardware profile.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import FETCH, HOST, Core, Event, FloatArray, IntArray, Rows, World, policy


@policy("freetoken", axis="miss", source="FreeToken", needs=["rates"], compiled=True)
class FreeToken(NamedTuple):
    """How many of the event's misses are still to be fetched."""

    left: IntArray  # (1,)
    rates: FloatArray  # seconds: link, host, host for each further token, device

    @classmethod
    def create(cls, world: World) -> FreeToken:
        """Build it."""
        return cls(np.zeros(1, np.int64), world.rates)

    def prepare(self, event: Event, core: Core, missing: int) -> None:
        """Divide by bandwidth: of an expert, the inverse of its seconds."""
        self.left[0] = int(missing * min(1.0, self.rates[1] / self.rates[0]) + 0.5)

    def answer(self, key: int, event: Event, rows: Rows, core: Core) -> int:
        """Fetch the first ones."""
        self.left[0] -= 1
        return FETCH if self.left[0] >= 0 else HOST
