"""DALI's window: a key that made `hot` of the last `window` accesses is protected; LRU for others.

What tinyserve calls DALI (github.com/e1n00r/tinyserve at 197d368, `DALIPolicy`), after DALI
(arXiv:2602.03495), whose own rule is not published as code. As there, a key is found hot or cold
when it is accessed, and stays so until the next time; where all are hot, the first to enter leaves.
The window counts accesses, not tokens: where one token makes more than 1 / hot of them, no key can
become hot, and this is LRU.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import NOBODY, Count, Event, IntArray, KeyArray, Share, World, policy

HOT = 1 << 40  # above any clock


@policy("dali", source="tinyserve, after DALI, arXiv:2602.03495", remembers=True, compiled=True)
class DALI(NamedTuple):
    """Stamps, what keys were found to be, and the window."""

    last: IntArray  # (keys,) clock of the last touch
    entry: IntArray  # (keys,) clock of the entry
    is_hot: IntArray  # (keys,) 1 if found hot
    uses: IntArray  # (keys,) accesses in the window
    recent: KeyArray  # (window,) a ring of the keys accessed
    accesses: IntArray  # [so far]
    least: int  # accesses that make a key hot

    @classmethod
    def create(cls, world: World, *, window: Count = 256, hot: Share = 0.1) -> DALI:
        """Build the empty window."""
        zero, none = np.zeros(world.num_keys, np.int64), np.zeros(1, np.int64)
        ring, least = np.full(window, NOBODY, np.uint32), max(1, int(window * hot))
        return cls(zero, zero.copy(), zero.copy(), zero.copy(), ring, none, least)

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Access."""
        slide(self, key)
        judge(self, key, event)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter with an access."""
        self.entry[key] = event.clock
        slide(self, key)
        judge(self, key, event)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter without an access."""
        self.entry[key] = event.clock
        judge(self, key, event)

    def rank(self, key: int, event: Event) -> float:
        """Rank the cold by last touch, above them the hot by entry."""
        return HOT + self.entry[key] if self.is_hot[key] else self.last[key]


def slide(policy: DALI, key: int) -> None:
    """Slide the window over an access."""
    place = policy.accesses[0] % len(policy.recent)
    if policy.recent[place] != NOBODY:
        policy.uses[policy.recent[place]] -= 1
    policy.recent[place] = key
    policy.uses[key] += 1
    policy.accesses[0] += 1


def judge(policy: DALI, key: int, event: Event) -> None:
    """Find a key hot or cold."""
    policy.last[key] = event.clock
    policy.is_hot[key] = policy.uses[key] >= policy.least
