"""Staging: some slots hold what was fetched ahead until it is used, and nothing else.

A prefetch lands there and evicts nobody. When its key is used first it is admitted as a miss would
be: the policy names who leaves, whose slot becomes staging's, so no bytes move. The policy sees
neither these slots nor, before that, what is in them. A staged key is held, so nobody evicts it; it
gives way to another prefetch once it was used, or its event has passed.

Bound in a kernel only where a schedule asks for it (`bind_staging`); no other pays for it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from specmd.core import hooks, serve, turnover
from specmd.core.event import NOBODY, Event, IntArray, KeyArray, World
from specmd.core.hooks import admits, on_evict, on_insert, on_use, outweighs, victim
from specmd.core.specialise import Function
from specmd.core.state import EMPTY, NEVER_ADMIT, Core, give_back, take_free
from specmd.core.turnover import evict


class Staging(NamedTuple):
    """The staged keys of pool p are `keys[first[p]:first[p] + count[p]]`."""

    first: IntArray  # (pools + 1,) room of each pool
    count: IntArray  # type: ignore[assignment]  # (pools,)
    keys: KeyArray
    held: IntArray  # (keys,) 1 while staged


def make_staging(world: World, slots: int) -> Staging:
    """Share so many slots among the pools, none of which gives more than half of its own."""
    each = np.minimum(-(-slots // world.pools), world.capacity // 2)
    first = np.append(0, np.cumsum(each))
    return Staging(
        first.astype(np.int64),
        np.zeros(world.pools, np.int64),
        np.zeros(int(first[-1]), np.uint32),
        np.zeros(world.num_keys, np.int64),
    )


def without_staging(world: World, slots: int) -> World:
    """Return the world as the policy is told it: of the slots that are left."""
    staging = make_staging(world, slots)
    return world._replace(capacity=world.capacity - np.diff(staging.first))


def staged(core: Core, key: int) -> bool:
    """Tell whether a key is staged."""
    return core.staging.held[key] != 0


def reserved(core: Core, pool: int) -> int:
    """Count the free slots that are for staging."""
    room = core.staging.first[pool + 1] - core.staging.first[pool]
    return room - core.staging.count[pool]


def unstage(core: Core, key: int) -> None:
    """Take a key out of staging; its slot is as any other's from now on."""
    staging, pool = core.staging, core.pool[key]
    place = staging.first[pool]
    while staging.keys[place] != key:
        place += 1
    staging.count[pool] -= 1
    staging.keys[place] = staging.keys[staging.first[pool] + staging.count[pool]]
    staging.held[key] = 0
    core.hold[key] -= 1


def slot_ahead(
    core: Core, policy: Any, key: int, pool: int, due: int, row: int, event: Event
) -> Any:
    """Return a slot of staging: a free one, else that of a key that was used or is overdue."""
    staging = core.staging
    first, count = staging.first[pool], staging.count[pool]
    if count < staging.first[pool + 1] - first:
        return take_free(core, pool)
    leaving = NOBODY
    for i in range(first, first + count):
        other = staging.keys[i]
        if core.hold[other] == 1 and core.due[other] <= event.clock:
            earlier = leaving == NOBODY or core.due[other] < core.due[leaving]
            if earlier or (core.due[other] == core.due[leaving] and other > leaving):
                leaving = other
    return NOBODY if leaving == NOBODY else evict(core, policy, leaving, row, event)


def note_ahead(core: Core, policy: Any, key: int, pool: int, event: Event) -> None:
    """Stage a key that is fetched ahead."""
    staging = core.staging
    staging.keys[staging.first[pool] + staging.count[pool]] = key
    staging.count[pool] += 1
    staging.held[key] = 1
    core.hold[key] += 1


def note_use(core: Core, policy: Any, key: int, event: Event) -> None:
    """Tell the policy of a use, unless it does not know the key so far."""
    if not staged(core, key):
        on_use(policy, key, core.pool[key], event)


def note_left(core: Core, policy: Any, key: int, event: Event) -> None:
    """Tell who knew the key that it left."""
    if staged(core, key):
        unstage(core, key)
    else:
        on_evict(policy, key, core.pool[key], event)


def admit_staged(core: Core, policy: Any, row: int, event: Event) -> None:
    """Admit the staged keys of U, in order of keys, before what is missing."""
    for i in range(event.start, event.stop):
        key = event.keys[i]
        if staged(core, key) and core.admission[0] < NEVER_ADMIT:
            pool = core.pool[key]
            if not admits(core.gate, key, pool, core, event):
                continue
            if core.num_free[pool] <= reserved(core, pool):
                leaving = victim(policy, key, pool, core, event)
                if leaving == NOBODY or not outweighs(core.gate, key, leaving, core, event):
                    continue
                give_back(core, pool, evict(core, policy, leaving, row, event))
            unstage(core, key)
            on_insert(policy, key, pool, event)


def wait_for_slot(core: Core, policy: Any, link: Any, pool: int, row: int, event: Event) -> Any:
    """Have no prefetch make room: it holds no slot of the policy's."""
    return NOBODY


def bind_staging() -> dict[Function, Function]:
    """Return what the core's functions stand for where there is staging."""
    return {
        hooks.staged: staged,
        hooks.reserved: reserved,
        turnover.slot_ahead: slot_ahead,
        turnover.note_ahead: note_ahead,
        turnover.note_use: note_use,
        turnover.note_left: note_left,
        turnover.admit_staged: admit_staged,
        serve.wait_for_slot: wait_for_slot,
    }


def as_told(core: Any) -> Any:
    """Return the core as the eviction policy knows it: staged keys are not there."""
    if core.staging == ():
        return core
    held = zip(core.state, core.staging.held, strict=True)
    state = [EMPTY if staged else state for state, staged in held]
    return core._replace(state=state if isinstance(core.state, list) else np.array(state, np.uint8))
