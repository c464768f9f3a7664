"""Every eviction policy, compiled, decides as it does interpreted.

A kernel takes seconds to compile, and most of them go into the core; so here a policy drives the
smallest cache there is, which asks it all that the core does. What the core makes of the answers,
compiled, is looked at in test_engines_agree.py with a few of them.
"""

import numpy as np
import pytest
from learned_files import with_weights
from test_engines_agree import POLICIES, made

from specmd.core.binding import bind_policy
from specmd.core.event import NOBODY, World, event_at
from specmd.core.hooks import on_event, on_evict, on_insert, on_prefetch, on_use, victim
from specmd.core.interpreted import as_lists
from specmd.core.specialise import specialise
from specmd.core.state import EMPTY, READY, create_core, preload, seat, take_free, unseat
from specmd.policy.registry import choose
from specmd.simulation.events import EventStream
from specmd.simulation.loads import popularity
from specmd.trace.training import training_rows


def enter(core, policy, key, event, ahead):
    """Let a key in, for another if need be; return who left."""
    pool = core.pool[key]
    slot, leaving = take_free(core, pool), NOBODY
    if slot == NOBODY:
        leaving = victim(policy, key, pool, core, event)
        if leaving == NOBODY:
            return NOBODY
        on_evict(policy, leaving, pool, event)
        slot = unseat(core, leaving)
    seat(core, key, slot)
    core.state[key] = READY
    if ahead:
        on_prefetch(policy, key, pool, event)
    else:
        on_insert(policy, key, pool, event)
    return leaving


def drive(core, policy, future, chunk, left):
    """Serve the events of a chunk; every third also fetches its neighbours ahead."""
    noted = 0
    for i in range(len(chunk.layer)):
        for j in range(chunk.start[i], chunk.start[i + 1]):
            future[chunk.keys[j]] = chunk.next_use[j]
        event = event_at(chunk, i, future)
        core.guard[1] = event.clock
        on_event(policy, event)
        for j in range(event.start, event.stop):
            core.hold[event.keys[j]] += 1
        for ahead in range(1 + (i % 3 == 0)):
            for j in range(event.start, event.stop):
                key = (event.keys[j] + ahead) % len(core.state)
                if core.state[key] == EMPTY:
                    left[noted] = enter(core, policy, key, event, ahead == 1)
                    noted += 1
                elif ahead == 0:
                    on_use(policy, key, core.pool[key], event)
        for j in range(event.start, event.stop):
            core.hold[event.keys[j]] -= 1
        left[noted] = victim(policy, NOBODY, core.pool[event.keys[event.start]], core, event)
        noted += 1


def driven(choice, capacity, *, compiled):
    """Who left, in order, of a cache of so many slots in each pool."""
    trace, other = made(), made(seed=1)
    world = World.of(
        trace.header, capacity, seed=3, popularity=popularity(other), training=training_rows(other)
    )
    stream = EventStream(trace, future=True, weights=True)
    chunk = stream.chunk(0, stream.num_steps)
    core, policy = create_core(world), choice.create(world)
    if choice.pins:
        preload(core, policy.kept)
    left = np.zeros(3 * len(chunk.keys), np.int64)
    asked = core, policy, np.zeros(world.num_keys, np.int64), chunk, left
    asked = asked if compiled else as_lists(asked)
    specialise(drive, bind_policy(choice), compiled)(*asked)
    return list(asked[-1])


@pytest.mark.parametrize("spelled", POLICIES)
def test_interpreted_is_compiled(spelled):
    choice = choose("evict", with_weights("evict", spelled, made().header))
    assert choice.compiled
    for capacity in ([13], [3, 3, 2, 3]):
        found = driven(choice, capacity, compiled=True)
        assert found == driven(choice, capacity, compiled=False)
        assert choice.frozen or len({*found} - {0, int(NOBODY)}) > 8
