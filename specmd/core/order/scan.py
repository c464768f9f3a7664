"""The fallback order: ask every candidate for its rank, each time a slot is needed.

For policies whose ranks change from event to event in no order of their own. It costs a rank per
slot of the pool, so it is for such policies alone.
"""

from __future__ import annotations

import math
from typing import Any

from specmd.core.event import NOBODY, Event
from specmd.core.hooks import rank
from specmd.core.state import READY, Core, evictable


def least_ranked(policy: Any, incoming: int, pool: int, core: Core, event: Event) -> int:
    """Find the evictable key of smallest rank; among equals, the largest key.

    Where an event narrows (nothing is incoming), keys of it are there that have no slot.
    """
    best = NOBODY
    least = math.inf
    for slot in range(core.first_slot[pool], core.first_slot[pool + 1]):
        key = core.key_in[slot]
        if key != NOBODY:
            value = rank(policy, key, event)
            able = precedes(value, key, least, best) and core.state[key] == READY
            if able and evictable(core, key):
                best, least = key, value
    if incoming == NOBODY:
        for i in range(event.start, event.stop):
            key = event.keys[i]
            if core.pool[key] == pool and core.slot[key] == NOBODY and core.state[key] == READY:
                value = rank(policy, key, event)
                if precedes(value, key, least, best) and evictable(core, key):
                    best, least = key, value
    return best


def precedes(value: float, key: int, least: float, best: int) -> bool:
    """Tell whether a key leaves before the best so far, if there is one."""
    return value < least or (value == least and (best == NOBODY or key > best))
