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
        """Compare by cross-multiplication, slot by slot; key by key where keys have no slot."""
        best = NOBODY
        if incoming != NOBODY:
            for slot in range(core.first_slot[pool], core.first_slot[pool + 1]):
                best = lower(self, core.key_in[slot], best, core, event)
        else:
            for key in range(len(core.pool)):
                if core.pool[key] == pool and core.state[key] == READY:
                    best = lower(self, key, best, core, event)
        return best


def lower(policy: LFRU, key: int, best: int, core: Core, event: Event) -> int:
    """Return whichever of two keys leaves first, if `key` may leave at all."""
    if key == NOBODY or not evictable(core, key):
        return best
    if best == NOBODY:
        return key
    mine = policy.uses[key] * (event.clock - policy.last[best] + 1)
    its = policy.uses[best] * (event.clock - policy.last[key] + 1)
    return key if mine < its or (mine == its and key > best) else best
