"""The fallback order: ask every candidate for its rank, each time a slot is needed.

For policies whose ranks change from event to event in no order of their own. It costs a rank per
slot of the pool, so it is for such policies alone.
"""

from __future__ import annotations

from typing import Any

from specmd.core.event import NOBODY, Event
from specmd.core.hooks import rank
from specmd.core.state import READY, Core, evictable


def least_ranked(policy: Any, incoming: int, pool: int, core: Core, event: Event) -> int:
    """Find the evictable key of smallest rank; among equals, the largest key."""
    best = NOBODY
    least = 0.0
    for key in range(len(core.state)):
        if core.pool[key] == pool and core.state[key] == READY and evictable(core, key):
            value = rank(policy, key, event)
            if best == NOBODY or value <= least:
                best = key
                least = value
    return best
