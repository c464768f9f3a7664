"""A tier: a second cache of the same core, asked for what a first one fetches.

Experts that are not on the device wait in host memory, or, where that is too small, on a disk
behind it. The host then is a cache itself: every transfer to the device asks it once for its key.
It is there (a host hit), or it is read from the disk into a slot, and a victim leaves. The rules
are those of one access (`specmd.core.serve.access`), the policy is one of the same registry, so
the decisions are those of a sequential replay of the keys asked for.

A demanded key is asked for when it is fetched, a prefetched one when its transfer begins or when
it is promoted to a demand: what is cancelled before that has not touched the tier.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from specmd.core.binding import Maker, bind_policy
from specmd.core.event import Event, FloatArray, IntArray, KeyArray, World
from specmd.core.hooks import stage
from specmd.core.serve import access
from specmd.core.specialise import Function, embed
from specmd.core.state import (
    ACCESSES,
    FETCHED_EVER,
    FORCED,
    NUM_COUNTERS,
    READY,
    REUSE_HITS,
    TOKEN_ACCESSES,
    TOKEN_HITS,
    Core,
    create_core,
)


class Tier(NamedTuple):
    """State of a tier, and the arrays its events are made of."""

    core: Core
    policy: Any
    clock: IntArray  # (1,) keys asked for so far
    keys: KeyArray  # (1,) the key asked for
    tokens: KeyArray  # (1,)
    gates: FloatArray  # (0,)
    future: IntArray  # (0,)
    num_layers: int
    num_experts: int


def make_tier(world: World, maker: Maker, admission: int = FORCED) -> Tier:
    """Build an empty tier; `world` has its pools, not those of the device."""
    return Tier(
        core=create_core(world, admission),
        policy=maker.create(world),
        clock=np.zeros(1, np.int64),
        keys=np.zeros(1, np.uint32),
        tokens=np.ones(1, np.uint32),
        gates=np.zeros(0),
        future=np.zeros(0, np.int64),
        num_layers=world.num_layers,
        num_experts=world.num_experts,
    )


def look_up(tier: Tier, key: int, step: int, phase: int) -> bool:
    """Ask a tier for a key: whether it was there. Afterwards it is, unless it was refused."""
    tier.clock[0] += 1
    tier.keys[0] = key
    layer = key // tier.num_experts
    event = Event(
        tier.clock[0],
        step,
        layer,
        phase,
        0,
        1,
        tier.keys,
        tier.tokens,
        tier.gates,
        tier.num_layers,
        tier.num_experts,
        tier.future,
    )
    core = tier.core
    row = (phase * tier.num_layers + layer) * NUM_COUNTERS
    there = core.state[key] == READY
    core.counters[row + REUSE_HITS] += access(core, tier.policy, tier, key, row, event)
    core.counters[row + ACCESSES] += 1
    core.counters[row + TOKEN_ACCESSES] += 1
    if there:
        core.counters[row + TOKEN_HITS] += 1
    return there


def bind_tier(maker: Maker) -> dict[Function, Function]:
    """Return what `stage` stands for where a tier is: `look_up`, bound to the tier's own policy."""
    return {stage: embed(look_up, bind_policy(maker))}


def emptied(tier: Tier, fresh: Tier) -> Tier:
    """Return a fresh tier that goes on counting where one left off."""
    for key, mark in enumerate(tier.core.mark):
        fresh.core.mark[key] |= mark & FETCHED_EVER
    core = fresh.core._replace(counters=tier.core.counters, digest=tier.core.digest)
    return fresh._replace(core=core, clock=tier.clock)


def tier_counters(tier: Tier) -> npt.NDArray[np.int64]:
    """Counters (2 phases, layers, NUM_COUNTERS); its misses are what was read from the disk."""
    shape = (2, tier.num_layers, NUM_COUNTERS)
    return np.array(tier.core.counters, np.int64).reshape(shape)
