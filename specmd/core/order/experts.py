"""Two experts, of recency and of frequency, and how far each is trusted: for LeCaR and CACHEUS.

Each names a key to leave; one is drawn by its weight, and is regretted, and trusted less, when the
key is missed while among its ghosts. G. Vietri et al., "Driving cache replacement with ML-based
LeCaR", HotStorage 2018, algorithms 1 and 2; L. V. Rodriguez et al., "Learning cache replacement
with CACHEUS", FAST 2021.
"""

from __future__ import annotations

from math import exp
from typing import NamedTuple

import numpy as np

from specmd.core.event import Event, FloatArray, IntArray, KeyArray, World
from specmd.core.order.chance import fraction
from specmd.core.order.queues import (
    NOWHERE,
    USED,
    Queues,
    bring,
    depart,
    first_use,
    make_queues,
    move,
    part_of,
)

RESIDENT, RECENCY, FREQUENCY = range(3)
LEAST_WEIGHT = 0.01  # of either, as in the authors' code
KEY_SPACE = 1 << 20


class Experts(NamedTuple):
    """What is there, what each expert let go, and the weight of RECENCY; FREQUENCY has the rest."""

    queues: Queues  # RESIDENT in order of use, ghosts of RECENCY, of FREQUENCY
    uses: IntArray  # (keys,) kept while a key is remembered
    left: IntArray  # (keys,) clock
    weight: FloatArray  # (pools,)
    rate: FloatArray  # (pools,) of learning
    fade: FloatArray  # (pools,) what an event leaves of a regret
    chosen: IntArray  # (1,) whose nominee is leaving; NOWHERE where both named it
    pool: KeyArray
    seed: int


def make_experts(world: World, rate: float, fade: float = 1.0, memory: float = 1.0) -> Experts:
    """Build two that are trusted alike.

    Args:
        world: its sizes.
        rate: of learning.
        fade: what is left of a regret after as many events as the pool has slots.
        memory: ghosts of an expert, as a multiple of the slots.

    """
    uses, chosen = np.zeros(world.num_keys, np.int64), np.full(1, NOWHERE, np.int64)
    queues, weight = make_queues(world, 3, memory), np.full(world.pools, 0.5)
    rates, fades = np.full(world.pools, rate), fade ** (1.0 / part_of(world, 1.0))
    return Experts(queues, uses, uses.copy(), weight, rates, fades, chosen, world.pool, world.seed)


def regret(experts: Experts, key: int, expert: int, now: int) -> None:
    """Trust an expert less that let a key go, the less so the longer that is ago."""
    pool = experts.pool[key]
    passed = float(now - experts.left[key])
    factor = exp(-experts.rate[pool] * experts.fade[pool] ** passed)
    recency, frequency = experts.weight[pool], 1.0 - experts.weight[pool]
    if expert == RECENCY:
        recency *= factor
    else:
        frequency *= factor
    share = recency / (recency + frequency)
    experts.weight[pool] = min(max(share, LEAST_WEIGHT), 1.0 - LEAST_WEIGHT)


def look_back(experts: Experts, event: Event) -> None:
    """Learn from every miss of an event on a ghost, before anything leaves for it."""
    for i in range(event.start, event.stop):
        key = event.keys[i]
        expert = experts.queues.where[key]
        if expert in (RECENCY, FREQUENCY):
            regret(experts, key, expert, event.clock)
            bring(experts.queues, experts.pool[key], key, NOWHERE)


def use(experts: Experts, key: int, now: int) -> None:
    """Count a use of a resident key; the first of a prefetched one may be a regret."""
    expert = first_use(experts.queues, key)
    if expert < NOWHERE:
        regret(experts, key, expert, now)
    experts.uses[key] += 1
    move(experts.queues, experts.pool[key], key, RESIDENT)


def come(experts: Experts, key: int) -> int:
    """Let a missed key in; return its uses, those before it left if it was remembered, and this."""
    if first_use(experts.queues, key) >= NOWHERE:
        experts.uses[key] = 0
    experts.uses[key] += 1
    move(experts.queues, experts.pool[key], key, RESIDENT)
    return experts.uses[key]


def come_ahead(experts: Experts, key: int) -> int:
    """Let a prefetched key in; return its uses so far."""
    if experts.queues.where[key] == NOWHERE:
        experts.uses[key] = 0
    bring(experts.queues, experts.pool[key], key, RESIDENT)
    return experts.uses[key]


def choose_one(experts: Experts, pool: int, recency: int, frequency: int, now: int) -> int:
    """Draw one of two nominees by the experts' weights; note whose it is, unless they agree."""
    experts.chosen[0] = NOWHERE
    if recency == frequency:
        return recency
    draw = fraction(experts.seed, now * KEY_SPACE + recency)
    experts.chosen[0] = RECENCY if draw < experts.weight[pool] else FREQUENCY
    return recency if experts.chosen[0] == RECENCY else frequency


def go(experts: Experts, key: int, now: int) -> None:
    """Let a key leave, and remember it as a ghost of whoever named it."""
    if experts.queues.origin[key] == USED:
        experts.left[key] = now
    depart(experts.queues, experts.pool[key], key, experts.chosen[0])
    experts.chosen[0] = NOWHERE
