"""Ranks that all change from event to event, kept side by side: each is asked for once an event.

For policies whose `rank` moves with time in no order of its own, and within an event never falls;
such a policy has a field `scores: Scores`. Several keys leave a pool in one event: the first few
that would are found with the ranks, in order. Between two of them only what entered has to be
ranked, and who is first once more. `specmd.core.order.scan` asks for every rank each time instead.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from specmd.core.event import NOBODY, Event, FloatArray, IntArray, KeyArray, World
from specmd.core.hooks import rank
from specmd.core.order.scan import least_ranked, precedes
from specmd.core.state import Core, evictable

SHORT = 8  # keys of a pool that are kept in the order in which they would leave


class Scores(NamedTuple):
    """Residents of pool p are at places `p * span` to `p * span + count[p] - 1`.

    Those that leave first are also listed, from `p * SHORT` on; none that is ranked and not listed
    leaves before the bound.
    """

    key: KeyArray  # (places,)
    place: KeyArray  # (keys,)
    count: IntArray  # type: ignore[assignment]  # (pools,)
    ranked: IntArray  # (pools,) places whose ranks are of the event at `clock`
    clock: IntArray  # (pools,)
    first: KeyArray  # (pools * SHORT,) the listed, first to leave first
    least: FloatArray  # (pools * SHORT,) their ranks
    listed: IntArray  # (pools,) how many there are
    bound: FloatArray  # (pools,) rank of the key below
    bound_key: KeyArray  # (pools,) NOBODY where all are listed
    span: int

    @classmethod
    def of(cls, world: World) -> Scores:
        """Build room for the keys of every pool, with none in it."""
        pools, places = world.pools, world.pools * world.pool_span
        return cls(
            np.zeros(places, np.uint32),
            np.zeros(world.num_keys, np.uint32),
            np.zeros(pools, np.int64),
            np.zeros(pools, np.int64),
            np.zeros(pools, np.int64),
            np.zeros(pools * SHORT, np.uint32),
            np.zeros(pools * SHORT),
            np.zeros(pools, np.int64),
            np.full(pools, np.inf),
            np.full(pools, NOBODY, np.uint32),
            world.pool_span,
        )


def enter(policy: Any, key: int, pool: int, event: Event) -> None:
    """Add a key: `on_insert` of a policy with `scores` that has none of its own."""
    join(policy.scores, pool, key)


def join(scores: Scores, pool: int, key: int) -> None:
    """Add a key: what such a policy's own `on_insert` and `on_prefetch` call."""
    place = pool * scores.span + scores.count[pool]
    scores.count[pool] += 1
    scores.key[place] = key
    scores.place[key] = place


def part(policy: Any, key: int, pool: int, event: Event) -> None:
    """Remove a key: `on_evict` of a policy with `scores`."""
    scores = policy.scores
    first, hole = pool * scores.span, scores.place[key]
    if hole < first + scores.ranked[pool]:
        scores.ranked[pool] -= 1
        hole = fill(scores, hole, first + scores.ranked[pool])
    scores.count[pool] -= 1
    fill(scores, hole, first + scores.count[pool])
    unlist(scores, pool, key)


def fill(scores: Scores, hole: int, place: int) -> int:
    """Move a key to a place that is free; return the place that is free then."""
    if hole != place:
        key = scores.key[place]
        scores.key[hole] = key
        scores.place[key] = hole
    return place


def unlist(scores: Scores, pool: int, key: int) -> None:
    """Take a key from the listed, if it is one."""
    at, end = pool * SHORT, pool * SHORT + scores.listed[pool]
    while at < end and scores.first[at] != key:
        at += 1
    if at < end:
        scores.listed[pool] -= 1
        for later in range(at, end - 1):
            scores.first[later] = scores.first[later + 1]
            scores.least[later] = scores.least[later + 1]


def forget(scores: Scores, pool: int) -> None:
    """Rank all keys anew when next asked: where ranks fell within an event."""
    scores.ranked[pool] = 0
    scores.listed[pool] = 0
    scores.bound[pool] = np.inf
    scores.bound_key[pool] = NOBODY


def list_first(scores: Scores, pool: int, key: int, value: float) -> None:
    """List a ranked key if it leaves before the bound; what there is no room for is the bound."""
    if not precedes(value, key, scores.bound[pool], scores.bound_key[pool]):
        return
    at = pool * SHORT + scores.listed[pool]
    if scores.listed[pool] == SHORT:
        at -= 1
        full = precedes(value, key, scores.least[at], scores.first[at])
        scores.bound[pool] = scores.least[at] if full else value
        scores.bound_key[pool] = scores.first[at] if full else key
        if not full:
            return
    else:
        scores.listed[pool] += 1
    while at > pool * SHORT and precedes(value, key, scores.least[at - 1], scores.first[at - 1]):
        scores.first[at] = scores.first[at - 1]
        scores.least[at] = scores.least[at - 1]
        at -= 1
    scores.first[at] = key
    scores.least[at] = value


def least_scored(policy: Any, incoming: int, pool: int, core: Core, event: Event) -> int:
    """Find the evictable key of smallest `rank`, of equals the largest: `victim` of such a one."""
    scores = policy.scores
    if scores.clock[pool] != event.clock or scores.listed[pool] == 0:
        scores.clock[pool] = event.clock
        forget(scores, pool)
    first = pool * scores.span
    for place in range(first + scores.ranked[pool], first + scores.count[pool]):
        value = rank(policy, scores.key[place], event)
        if value <= scores.bound[pool]:
            list_first(scores, pool, scores.key[place], value)
    scores.ranked[pool] = scores.count[pool]
    at = pool * SHORT
    while at < pool * SHORT + scores.listed[pool]:
        key = scores.first[at]
        if not evictable(core, key):
            at += 1
            continue
        value = rank(policy, key, event)
        if value <= scores.least[at]:
            return key
        unlist(scores, pool, key)  # others may be before it now
        list_first(scores, pool, key, value)
        at = pool * SHORT
    return least_ranked(policy, incoming, pool, core, event)
