"""LFRU: the smallest `uses / (events since the last touch + 1)` leaves first.

A blend of frequency and recency used by MoE servers: vLLM pull request 37190 and the
moe-cache-eval study, where it is the best causal policy. Counts survive eviction.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy.event import NOBODY, Event, IntArray, World
from specmd.policy.registry import policy
from specmd.residency import READY, Core, evictable


@policy("lfru", source="vLLM pull request 37190; moe-cache-eval")
class LFRU(NamedTuple):
    """Use counts and last touches."""

    uses: IntArray
    last: IntArray

    @classmethod
    def create(cls, world: World) -> LFRU:
        """Start from zero."""
        return cls(np.zeros(world.num_keys, np.int64), np.zeros(world.num_keys, np.int64))

    def on_event(self, event: Event) -> None:
        """Count and stamp every key of U."""
        for i in range(event.start, event.stop):
            self.uses[event.keys[i]] += 1
            self.last[event.keys[i]] = event.clock

    def on_prefetch(self, key: int, event: Event) -> None:
        """Stamp: a prefetch touches."""
        self.last[key] = event.clock

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Compare uses / age by cross-multiplication; ask only a better key if it may leave."""
        if incoming == NOBODY:
            return least_of_pool(self, pool, core, event)
        now = event.clock + 1
        best, best_uses, best_age = NOBODY, 1, 0
        for slot in range(core.first_slot[pool], core.first_slot[pool + 1]):
            key = core.key_in[slot]
            if key != NOBODY:
                age = now - self.last[key]
                mine, its = self.uses[key] * best_age, best_uses * age
                if (mine < its or (mine == its and key > best)) and evictable(core, key):
                    best, best_uses, best_age = key, self.uses[key], age
        return best


def least_of_pool(policy: LFRU, pool: int, core: Core, event: Event) -> int:
    """Choose among all keys of a pool, also those that streamed through without a slot."""
    best, best_uses, best_age = -1, 1, 0
    for key in range(len(core.pool)):
        if core.pool[key] == pool and core.state[key] == READY and evictable(core, key):
            age = event.clock + 1 - policy.last[key]
            if policy.uses[key] * best_age <= best_uses * age:
                best, best_uses, best_age = key, policy.uses[key], age
    return NOBODY if best < 0 else best
