"""The link of a replay: no clock; every transfer is complete before the next event.

Prefetches stay LOADING while their event lasts (they may not be evicted by each other) and land
when the next one starts. Nothing is ever late, nothing can be cancelled: so every transfer begins
when it is issued, and asks the tier behind the link then.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from specmd.core.event import Event, IntArray
from specmd.core.hooks import stage
from specmd.core.state import Core, land


class InstantLink(NamedTuple):
    """Prefetches under way: `pending[:count[0]]`."""

    pending: IntArray
    count: IntArray  # type: ignore[assignment]
    tier: Any

    @classmethod
    def create(cls, num_keys: int, tier: Any = ()) -> InstantLink:
        """Build an idle link; `tier` is what lies behind it, see `specmd.core.tier`."""
        return cls(np.zeros(num_keys, np.uint32), np.zeros(1, np.int64), tier)

    def drain(self) -> None:
        """Forget what is under way: the cache is being emptied."""
        self.count[0] = 0

    def settle(self, core: Core, event: Event) -> None:
        """Land all that was issued in the event before."""
        for i in range(self.count[0]):
            land(core, self.pending[i])
        self.count[0] = 0

    def fetch(self, core: Core, key: int, event: Event) -> None:
        """Ask the tier; the copy takes no time."""
        stage(self.tier, key, event.step, event.phase)

    def compute_on_host(self, core: Core, key: int, tokens: int, event: Event) -> None:
        """Ask the tier for what the host computes."""
        stage(self.tier, key, event.step, event.phase)

    def prefetch(self, core: Core, key: int, score: float, event: Event) -> None:
        """Queue a copy; it lands before the next event."""
        stage(self.tier, key, event.step, event.phase)
        self.pending[self.count[0]] = key
        self.count[0] += 1
