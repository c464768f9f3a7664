"""The link of a replay: no clock; every transfer is complete before the next event.

Prefetches stay LOADING while their event lasts (they may not be evicted by each other) and land
when the next one starts. Nothing is ever late, nothing can be cancelled.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.core.event import Event, IntArray
from specmd.core.state import Core, land


class InstantLink(NamedTuple):
    """Prefetches under way: `pending[:count[0]]`."""

    pending: IntArray
    count: IntArray  # type: ignore[assignment]

    @classmethod
    def create(cls, num_keys: int) -> InstantLink:
        """Build an idle link."""
        return cls(np.zeros(num_keys, np.uint32), np.zeros(1, np.int64))

    def drain(self) -> None:
        """Forget what is under way: the cache is being emptied."""
        self.count[0] = 0

    def settle(self, core: Core, event: Event) -> None:
        """Land all that was issued in the event before."""
        for i in range(self.count[0]):
            land(core, self.pending[i])
        self.count[0] = 0

    def prefetch(self, core: Core, key: int, score: float, event: Event) -> None:
        """Queue a copy; it lands before the next event."""
        self.pending[self.count[0]] = key
        self.count[0] += 1
