"""The link of a replay: no clock; every transfer is complete before the next event.

Prefetches stay LOADING while their event lasts (they may not be evicted by each other) and land
when the next one starts. Nothing is ever late, nothing can be cancelled: so every transfer begins
when it is issued, and asks the tier behind the link then.

It can note what became of each access, which is all that a clock needs to know afterwards of a run
without prefetch: how long its events take depends on them, and they on no time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from specmd.core.event import NOBODY, Event, IntArray, KeyArray
from specmd.core.hooks import stage
from specmd.core.state import Core, land

# What became of an access: there, fetched into a slot, fetched to pass through, left to the host.
NOTED_HIT, NOTED_FETCH, NOTED_PASSING, NOTED_HOST = range(4)
# Entries of `InstantLink.count`.
PENDING, NOTED = range(2)


class InstantLink(NamedTuple):
    """Prefetches under way: `pending[:count[PENDING]]`."""

    pending: IntArray
    count: IntArray  # type: ignore[assignment]  # pending, accesses noted
    tier: Any
    missed: IntArray  # (keys,) demand fetches, and what the host was asked to compute
    ahead: IntArray  # (keys,) prefetches
    wanted: KeyArray  # (keys,) scratch: what becomes of the keys of this event
    noted: KeyArray  # (accesses,) what became of each, or empty

    @classmethod
    def create(cls, num_keys: int, tier: Any = (), accesses: int = 0) -> InstantLink:
        """Build an idle link.

        `tier` is what lies behind it, see `specmd.core.tier`; so many `accesses` are noted.
        """
        keys = np.zeros(num_keys, np.int64)
        return cls(
            pending=np.zeros(num_keys, np.uint32),
            count=np.zeros(2, np.int64),
            tier=tier,
            missed=keys.copy(),
            ahead=keys.copy(),
            wanted=np.zeros(num_keys, np.uint8),
            noted=np.zeros(accesses, np.uint8),
        )

    def drain(self) -> None:
        """Forget what is under way: the cache is being emptied."""
        self.count[PENDING] = 0

    def settle(self, core: Core, event: Event) -> None:
        """Land all that was issued in the event before."""
        for i in range(self.count[PENDING]):
            land(core, self.pending[i])
        self.count[PENDING] = 0

    def fetch(self, core: Core, key: int, event: Event) -> None:
        """Ask the tier; the copy takes no time."""
        stage(self.tier, key, event.step, event.phase)
        self.missed[key] += 1
        self.wanted[key] = NOTED_PASSING if core.slot[key] == NOBODY else NOTED_FETCH

    def compute_on_host(self, core: Core, key: int, tokens: int, event: Event) -> None:
        """Ask the tier for what the host computes."""
        stage(self.tier, key, event.step, event.phase)
        self.missed[key] += 1
        self.wanted[key] = NOTED_HOST

    def defer(self, core: Core, key: int, tokens: int, event: Event) -> None:
        """Ask the tier for what the host computes meanwhile; no clock here tells the two apart."""
        stage(self.tier, key, event.step, event.phase)
        self.missed[key] += 1

    def prefetch(self, core: Core, key: int, score: float, event: Event) -> None:
        """Queue a copy; it lands before the next event."""
        stage(self.tier, key, event.step, event.phase)
        self.ahead[key] += 1
        self.pending[self.count[PENDING]] = key
        self.count[PENDING] += 1

    def execute(self, core: Core, event: Event) -> None:
        """Note what became of the event's accesses."""
        if len(self.noted) > 0:
            at = self.count[NOTED]
            for i in range(event.start, event.stop):
                key = event.keys[i]
                self.noted[at] = self.wanted[key]
                self.wanted[key] = NOTED_HIT
                at += 1
            self.count[NOTED] = at
