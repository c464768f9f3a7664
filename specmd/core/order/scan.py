"""The fallback order: ask every candidate for its rank, each time a slot is needed.

For policies whose ranks change from event to event in no order of their own. It costs a rank per
slot of the pool, so it is for such policies alone.
"""

from __future__ import annotations

from typing import Any

from specmd.core.event import NOBODY, Event
from specmd.core.serve import READY, Core, evictable


def rank(policy: Any, key: int, event: Event) -> float:
    """Rank a resident key, smallest leaves first: a name to be bound."""
    return 0.0


def least_ranked(policy: Any, incoming: int, pool: int, core: Core, event: Event) -> int:
    """Find the evictable key of smallest rank; among equals, the largest key."""
    best = NOBODY
    least = 0.0
    keys_per_pool = len(core.state) // len(core.num_free)
    for key in range(pool * keys_per_pool, (pool + 1) * keys_per_pool):
        if core.state[key] == READY and evictable(core, key):
            value = rank(policy, key, event)
            if best == NOBODY or value <= least:
                best = key
                least = value
    return best
