"""Serving an event: the one place where the rules of the evaluation contract live.

Which keys of one MoE layer of one step are hits, late or misses, which key leaves for which, what
is prefetched. The policy decides the order, the link decides when bytes are there; both answer the
questions of `specmd.core.hooks`, bound by `specmd.core.kernel`, so the same lines drive a compiled
replay, an interpreted one, a timed simulation and the live cache.
"""

from __future__ import annotations

from typing import Any

from specmd.core.event import NOBODY, Event, IntArray, access_at, event_at
from specmd.core.hooks import (
    admits,
    admits_ahead,
    answer_misses,
    await_landing,
    close,
    conclude,
    execute,
    fetch,
    in_time,
    observe,
    on_event,
    on_evict,
    on_insert,
    on_use,
    outweighs,
    prefetch,
    promote,
    reclaim,
    reroute,
    reserved,
    settle,
    victim,
    withdraw,
)
from specmd.core.state import (
    ACCESSES,
    BEFORE,
    BYPASS,
    BYPASSED,
    CAPACITY_MISSES,
    COMPULSORY_MISSES,
    EMPTY,
    FETCHED_EVER,
    LATE_HITS,
    LOADING,
    LOG_BYPASS,
    LOG_FETCH,
    LOG_HIT,
    LOG_LATE,
    LOG_PREFETCH,
    NEVER_ADMIT,
    NUM_COUNTERS,
    PREFETCH_DROPPED,
    PREFETCH_HITS,
    PREFETCH_ISSUED,
    PREFETCH_REDUNDANT,
    PREFETCHED,
    READY,
    REUSE_HITS,
    TOKEN_ACCESSES,
    TOKEN_HITS,
    USED,
    Chunk,
    Core,
    log,
    seat,
    take_free,
    unseat,
)
from specmd.core.turnover import (
    admit_staged,
    cancel,
    evict,
    has_budget,
    note_ahead,
    note_use,
    slot_ahead,
)


def count_miss(core: Core, key: int, row: int, event: Event) -> None:
    """Classify a miss: compulsory, collision (evicted earlier in this step), or capacity."""
    kind = COMPULSORY_MISSES
    if core.mark[key] & FETCHED_EVER:
        # No branch: which of the two it is cannot be predicted. COLLISION comes before CAPACITY.
        kind = CAPACITY_MISSES - (core.evicted_step[key] == event.step)
    core.counters[row + kind] += 1


def admit(core: Core, policy: Any, link: Any, key: int, row: int, event: Event) -> None:
    """Fetch a missed key, into a slot if one can be had; otherwise it streams through.

    Under `bypass` nothing leaves for it now: `narrow` decides at the event's end, when U is no
    longer held, which of the residents and of U are worth the slots.
    """
    pool = core.pool[key]
    core.mark[key] = FETCHED_EVER | USED
    log(core, LOG_FETCH, key)
    if core.admission[0] < NEVER_ADMIT:
        if not admits(core.gate, key, pool, core, event):
            refuse(core, link, key, row, event)
            return
        slot = take_free(core, pool) if core.num_free[pool] > reserved(core, pool) else NOBODY
        if slot == NOBODY and core.admission[0] < BYPASS:
            leaving = victim(policy, key, pool, core, event)
            if leaving == NOBODY:
                slot = wait_for_slot(core, policy, link, pool, row, event)
                if slot == NOBODY:
                    leaving = victim(policy, key, pool, core, event)
            if leaving != NOBODY:
                if not outweighs(core.gate, key, leaving, core, event):
                    refuse(core, link, key, row, event)
                    return
                slot = evict(core, policy, leaving, row, event)
        if slot != NOBODY:
            seat(core, key, slot)
        else:
            core.slotless[pool] += 1
        core.state[key] = LOADING
        on_insert(policy, key, pool, event)
    else:
        core.counters[row + BYPASSED] += 1
    fetch(link, core, key, event)


def refuse(core: Core, link: Any, key: int, row: int, event: Event) -> None:
    """Let a missed key that the admission policy does not let in stream through."""
    core.counters[row + BYPASSED] += 1
    log(core, LOG_BYPASS, key)
    fetch(link, core, key, event)


def wait_for_slot(core: Core, policy: Any, link: Any, pool: int, row: int, event: Event) -> int:
    """Nothing may leave: cancel a queued prefetch for its slot, else wait for one to land."""
    queued = reclaim(link, core, pool)
    if queued != NOBODY:
        cancel(core, policy, queued, row, event)
        return take_free(core, pool)
    await_landing(link, core, pool)
    return NOBODY


def narrow(core: Core, policy: Any, event: Event, row: int, pool: int) -> None:
    """End of an event that streamed keys through: the best-ranked stay and get the slots.

    U is no longer held. Under forced admission all that is left in the pool by now is of U.
    """
    while core.slotless[pool] > 0:
        core.slotless[pool] -= 1
        leaving = victim(policy, NOBODY, pool, core, event)
        if core.admission[0] == BYPASS and core.slot[leaving] == NOBODY:
            core.counters[row + BYPASSED] += 1
            on_evict(policy, leaving, pool, event)
            log(core, LOG_BYPASS, leaving)
            unseat(core, leaving)
            continue
        slot = evict(core, policy, leaving, row, event)
        if slot != NOBODY:
            for i in range(event.start, event.stop):
                key = event.keys[i]
                if core.pool[key] == pool and core.state[key] == READY and core.slot[key] == NOBODY:
                    seat(core, key, slot)
                    break


def anticipate(
    core: Core, policy: Any, link: Any, chunk: Chunk, index: int, row: int, event: Event
) -> None:
    """Issue the event's prefetches, best first, while U is still held.

    A key of U is there or on its way, also one that was not admitted: held, though EMPTY.
    """
    for i in range(chunk.prefetch_start[index], chunk.prefetch_start[index + 1]):
        key = chunk.prefetch_keys[i]
        if core.state[key] != EMPTY or core.hold[key] != 0:
            core.counters[row + PREFETCH_REDUNDANT] += 1
            continue
        pool = core.pool[key]
        due = chunk.prefetch_due[i]
        slot = NOBODY
        if (
            has_budget(core, event)
            and in_time(link, core, key, due, event)
            and admits_ahead(core.gate, key, pool, core, event)
        ):
            slot = slot_ahead(core, policy, key, pool, due, row, event)
        if slot == NOBODY:
            core.counters[row + PREFETCH_DROPPED] += 1
            continue
        core.guard[3] += 1
        seat(core, key, slot)
        log(core, LOG_PREFETCH, key)
        core.counters[row + PREFETCH_ISSUED] += 1
        core.state[key] = LOADING
        core.hold[key] += 1
        core.mark[key] = (core.mark[key] & FETCHED_EVER) * BEFORE | FETCHED_EVER | PREFETCHED
        core.due[key] = due
        note_ahead(core, policy, key, pool, event)
        prefetch(link, core, key, chunk.prefetch_score[i], event)


def count_hit(core: Core, key: int, row: int) -> int:
    """Classify a hit; 1 if the key was used before in this stay, 0 if a prefetch brought it."""
    if core.mark[key] & USED != 0:
        return 1
    core.mark[key] |= USED
    core.due[key] = -1
    core.counters[row + PREFETCH_HITS] += 1
    return 0


def serve(core: Core, policy: Any, link: Any, chunk: Chunk, index: int, true: Event) -> None:
    """Serve one event: classify U once, fetch what is missing, prefetch, release U."""
    settle(link, core, true)
    event = reroute(core, chunk, index, true)
    demand(core, policy, link, event)
    complete(core, policy, link, chunk, index, event)


def demand(core: Core, policy: Any, link: Any, event: Event) -> None:
    """Serve the first half of an event: classify U once and fetch what is missing; U is held."""
    row = (event.phase * event.num_layers + event.layer) * NUM_COUNTERS
    state, hold, keys, loads = core.state, core.hold, event.keys, event.tokens
    core.guard[1] = event.clock
    on_event(policy, event)
    observe(core.gate, event)

    missing, reuse, tokens, token_hits = 0, 0, 0, 0
    for i in range(event.start, event.stop):
        key = keys[i]
        hold[key] += 1
        load = loads[i]
        tokens += load
        if state[key] == READY:
            reuse += count_hit(core, key, row)
            token_hits += load
            log(core, LOG_HIT, key)
            note_use(core, policy, key, event)
        elif state[key] == LOADING:
            core.counters[row + LATE_HITS] += 1
            core.mark[key] |= USED
            core.due[key] = -1
            log(core, LOG_LATE, key)
            promote(link, core, key)
            note_use(core, policy, key, event)
        else:
            count_miss(core, key, row, event)
            core.missing[missing] = key
            missing += 1
    core.counters[row + ACCESSES] += event.stop - event.start
    core.counters[row + REUSE_HITS] += reuse
    core.counters[row + TOKEN_ACCESSES] += tokens
    core.counters[row + TOKEN_HITS] += token_hits
    if missing > 0:
        missing = answer_misses(core, policy, link, row, event, missing)

    wrong = withdraw(link, core, event)
    while wrong != NOBODY:
        cancel(core, policy, wrong, row, event)
        wrong = withdraw(link, core, event)
    admit_staged(core, policy, row, event)
    for i in range(missing):
        admit(core, policy, link, core.missing[i], row, event)


def complete(core: Core, policy: Any, link: Any, chunk: Chunk, index: int, event: Event) -> None:
    """Serve the second half: prefetch, and release U."""
    row = (event.phase * event.num_layers + event.layer) * NUM_COUNTERS
    if len(chunk.prefetch_start) > 0:
        anticipate(core, policy, link, chunk, index, row, event)
    execute(link, core, close(core, event))

    state, hold, keys = core.state, core.hold, event.keys
    for i in range(event.start, event.stop):
        key = keys[i]
        hold[key] -= 1
        if state[key] == LOADING:
            state[key] = READY
    for pool in range(len(core.slotless)):
        if core.slotless[pool] > 0:
            narrow(core, policy, event, row, pool)


def run(core: Core, policy: Any, link: Any, future: IntArray, chunk: Chunk) -> None:
    """Serve all events of a chunk in order, each as a whole (the contract's default).

    A chunk without events says that none follow, or none before the cache is emptied.
    """
    for index in range(len(chunk.layer)):
        if len(chunk.next_use) > 0:
            for i in range(chunk.start[index], chunk.start[index + 1]):
                future[chunk.keys[i]] = chunk.next_use[i]
        serve(core, policy, link, chunk, index, event_at(chunk, index, future))
    if len(chunk.layer) == 0:
        conclude(link, core)


def access(core: Core, policy: Any, link: Any, key: int, row: int, event: Event) -> int:
    """Serve one access by itself; 1 if it is a hit on a key used before in this stay."""
    on_event(policy, event)
    observe(core.gate, event)
    if core.state[key] == READY:
        reuse = count_hit(core, key, row)
        log(core, LOG_HIT, key)
        on_use(policy, key, core.pool[key], event)
        return reuse
    count_miss(core, key, row, event)
    admit(core, policy, link, key, row, event)
    if core.state[key] == LOADING:
        core.state[key] = READY
    if core.slotless[core.pool[key]] > 0:
        narrow(core, policy, event, row, core.pool[key])
    return 0


def run_sequential(core: Core, policy: Any, link: Any, future: IntArray, chunk: Chunk) -> None:
    """Serve access by access, each an event of its own, as classic cache simulators do."""
    for index in range(len(chunk.layer)):
        start, stop = chunk.start[index], chunk.start[index + 1]
        row = (chunk.phase[index] * chunk.num_layers + chunk.layer[index]) * NUM_COUNTERS
        reuse = 0
        for i in range(start, stop):
            key = chunk.keys[i]
            if len(chunk.next_use) > 0:
                future[key] = chunk.next_use[i]
            event = access_at(chunk, index, i, future)
            reuse += access(core, policy, link, key, row, event)
        core.counters[row + ACCESSES] += stop - start
        core.counters[row + REUSE_HITS] += reuse
        core.counters[row + TOKEN_ACCESSES] += stop - start
        core.counters[row + TOKEN_HITS] += reuse
