"""Ranks that all change from event to event, kept side by side: each is asked for once an event.

For policies whose `rank` moves with time in no order of its own, and depends within an event on
nothing but the key; such a policy keeps a field `scores`. Several keys leave a pool in one event,
and between two of them only what entered has to be ranked anew. `specmd.core.order.scan` asks for
every rank each time instead.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from specmd.core.event import NOBODY, Event, FloatArray, IntArray, KeyArray, World
from specmd.core.hooks import rank
from specmd.core.state import Core, evictable


class Scores(NamedTuple):
    """Residents of pool p are at places `p * span` to `p * span + count[p] - 1`."""

    key: KeyArray  # (places,)
    value: FloatArray  # (places,) the rank
    place: KeyArray  # (keys,)
    count: IntArray  # type: ignore[assignment]  # (pools,)
    ranked: IntArray  # (pools,) places whose ranks are of the event at `clock`
    clock: IntArray  # (pools,)
    span: int

    @classmethod
    def of(cls, world: World) -> Scores:
        """Build room for the keys of every pool, with none in it."""
        places, zeros = world.pools * world.pool_span, np.zeros(world.pools, np.int64)
        return cls(
            np.zeros(places, np.uint32),
            np.zeros(places),
            np.zeros(world.num_keys, np.uint32),
            zeros,
            zeros.copy(),
            zeros.copy(),
            world.pool_span,
        )


def join(scores: Scores, pool: int, key: int) -> None:
    """Add a key."""
    place = pool * scores.span + scores.count[pool]
    scores.count[pool] += 1
    scores.key[place] = key
    scores.place[key] = place


def part(policy: Any, key: int, pool: int, event: Event) -> None:
    """Remove a key, the last one takes its place: `on_evict` of a policy with `scores`."""
    scores = policy.scores
    scores.count[pool] -= 1
    first = pool * scores.span
    end = first + scores.count[pool]
    hole, last = scores.place[key], scores.key[end]
    scores.key[hole] = last
    scores.value[hole] = scores.value[end]
    scores.place[last] = hole
    if scores.ranked[pool] > scores.count[pool]:
        scores.ranked[pool] = scores.count[pool]
    elif first + scores.ranked[pool] > hole:
        scores.ranked[pool] = hole - first  # what moved there has no rank yet


def least_scored(policy: Any, incoming: int, pool: int, core: Core, event: Event) -> int:
    """Find the evictable key of smallest `rank`, of equals the largest: `victim` of such a one."""
    scores = policy.scores
    first, count = pool * scores.span, scores.count[pool]
    if scores.clock[pool] != event.clock:
        scores.clock[pool] = event.clock
        scores.ranked[pool] = 0
    for place in range(first + scores.ranked[pool], first + count):
        scores.value[place] = rank(policy, scores.key[place], event)
    scores.ranked[pool] = count
    best, least = NOBODY, np.inf
    for place in range(first, first + count):
        value = scores.value[place]
        if value <= least:
            key = scores.key[place]
            if (value < least or best == NOBODY or key > best) and evictable(core, key):
                best, least = key, value
    return best
