"""The residency core: the one place where the rules of the evaluation contract live.

It serves an event (one MoE layer of one step) over plain arrays: which keys are hits, late or
misses, which key leaves for which, what is prefetched. The policy decides the order, the link
decides when bytes are there; both are bound by `specmd.core.specialise`, so the same lines drive a
compiled replay, an interpreted one, a timed simulation and the live cache.

Life of a key: EMPTY -> LOADING (demand or prefetch) -> READY -> EMPTY. A key is *held* (may not
leave) while its event lasts, while it is loading and while a kernel may read it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from specmd.core.event import NOBODY, Event, FloatArray, IntArray, KeyArray, World
from specmd.core.hooks import (
    on_event,
    on_evict,
    on_insert,
    on_prefetch,
    on_use,
    victim,
)
from specmd.core.link_hooks import (
    await_landing,
    execute,
    fetch,
    prefetch,
    promote,
    reclaim,
    settle,
    withdraw,
)

EMPTY, LOADING, READY = 0, 1, 2
FORCED, BYPASS, NEVER_ADMIT = 0, 1, 2

# Marks of a key. Both USED and PREFETCHED speak of its present stay.
FETCHED_EVER, USED, PREFETCHED = 1, 2, 4

# Counters, one row per (phase, layer).
ACCESSES = 0
REUSE_HITS = 1
PREFETCH_HITS = 2
LATE_HITS = 3
COMPULSORY_MISSES = 4
COLLISION_MISSES = 5
CAPACITY_MISSES = 6
TOKEN_ACCESSES = 7
TOKEN_HITS = 8
BYPASSED = 9
EVICTIONS = 10
UNUSED_EVICTIONS = 11
PREFETCH_ISSUED = 12
PREFETCH_WASTED = 13
PREFETCH_CANCELLED = 14
PREFETCH_REDUNDANT = 15
PREFETCH_DROPPED = 16
NUM_COUNTERS = 17

# Entries of the decision log; every miss is one fetch. From LOG_EVICT on, a key leaves.
LOG_HIT, LOG_LATE, LOG_FETCH, LOG_PREFETCH, LOG_EVICT, LOG_BYPASS, LOG_CANCEL = range(1, 8)


class Core(NamedTuple):
    """State of the cache. `keys` = layers * experts; pool of a key = key // keys_per_pool."""

    state: IntArray  # (keys,) EMPTY, LOADING, READY
    hold: IntArray  # (keys,) reasons why the key may not leave
    mark: IntArray  # (keys,) bits FETCHED_EVER, USED, PREFETCHED
    evicted_step: IntArray  # (keys,) step of the last eviction, -1 never
    due: IntArray  # (keys,) clock at which an unused prefetch is expected to be used, else -1
    slot: KeyArray  # (keys,) slot of a resident key, else NOBODY
    key_in: KeyArray  # (slots,) key in the slot, else NOBODY
    free: KeyArray  # (slots,) per pool, a stack of free slots
    num_free: IntArray  # (pools,)
    first_slot: IntArray  # (pools + 1,)
    slotless: IntArray  # (pools,) keys of a wide event that stream through without a slot
    pool: IntArray  # (keys,) pool of the key
    missing: IntArray  # (keys,) scratch: this event's misses
    guard: IntArray  # [due limit of the prefetch being placed, clock]
    counters: IntArray  # (2 * layers * NUM_COUNTERS,)
    digest: IntArray  # running hash of the decision log, two lanes of 32 bits
    admission: int
    guarded: int


class Chunk(NamedTuple):
    """A stretch of events in execution order, as flat arrays."""

    first_clock: int
    step: KeyArray  # (events,)
    layer: KeyArray  # (events,)
    phase: KeyArray  # (events,)
    start: IntArray  # (events + 1,) where each event's keys begin
    keys: KeyArray
    tokens: KeyArray
    gates: FloatArray
    next_use: IntArray  # clock of each key's next use; empty unless the policy needs it
    prefetch_start: IntArray  # (events + 1,), or empty without a prefetcher
    prefetch_keys: KeyArray
    prefetch_due: IntArray  # clock of the event a prefetch is meant for
    prefetch_score: FloatArray


def create_core(world: World, admission: int = FORCED, guarded: bool = False) -> Core:
    """Build an empty cache."""
    keys, slots = world.num_keys, int(world.capacity.sum())
    first = np.zeros(world.pools + 1, np.int64)
    first[1:] = np.cumsum(world.capacity)
    return Core(
        state=np.zeros(keys, np.uint8),
        hold=np.zeros(keys, np.uint16),
        mark=np.zeros(keys, np.uint8),
        evicted_step=np.full(keys, -1, np.int32),
        due=np.full(keys, -1, np.int64),
        slot=np.full(keys, NOBODY, np.uint32),
        key_in=np.full(slots, NOBODY, np.uint32),
        free=np.concatenate([np.arange(b - 1, a - 1, -1) for a, b in pairwise(first)]).astype(
            np.uint32
        ),
        num_free=np.asarray(world.capacity, np.int64).copy(),
        first_slot=first,
        slotless=np.zeros(world.pools, np.int64),
        pool=world.pool_of_keys(),
        missing=np.zeros(keys, np.uint32),
        guard=np.array([-1, 0], np.int64),
        counters=np.zeros(2 * world.num_layers * NUM_COUNTERS, np.int64),
        digest=np.array([0x2545F491, 0x1B873593], np.int64),
        admission=admission,
        guarded=int(guarded),
    )


def evictable(core: Core, key: int) -> bool:
    """Tell whether a resident key may leave now.

    It may unless it is held, or the prefetch being placed is guarded (`guard[0]` is its due) and
    the key is itself an unused prefetch, due from now until then.
    """
    if core.hold[key] != 0:
        return False
    limit = core.guard[0]
    return limit < 0 or core.due[key] <= core.guard[1] or core.due[key] > limit


def log(core: Core, entry: int, key: int) -> None:
    """Mix a decision into the digest; no product reaches 2**63, so every engine agrees.

    What comes goes into lane 0. What leaves goes into lane 1, with lane 0 as it then stands, so
    that the order between the two counts as well.
    """
    digest = core.digest
    if entry >= LOG_EVICT:
        mixed = (digest[1] + digest[0] + key * 16 + entry) * 0x32B73495
        digest[1] = (mixed ^ (mixed >> 29)) & 0xFFFFFFFF
    else:
        mixed = (digest[0] ^ (key * 16 + entry)) * 0x5BD1E995
        digest[0] = (mixed ^ (mixed >> 31)) & 0xFFFFFFFF


def land(core: Core, key: int) -> None:
    """Complete a transfer: the key is READY and may leave."""
    core.state[key] = READY
    core.hold[key] -= 1


def take_free(core: Core, pool: int) -> int:
    """Take a free slot of a pool; NOBODY if there is none."""
    if core.num_free[pool] == 0:
        return NOBODY
    core.num_free[pool] -= 1
    return core.free[core.first_slot[pool] + core.num_free[pool]]


def give_back(core: Core, pool: int, slot: int) -> None:
    """Put a slot among the free ones."""
    if slot != NOBODY:
        core.key_in[slot] = NOBODY
        core.free[core.first_slot[pool] + core.num_free[pool]] = slot
        core.num_free[pool] += 1


def seat(core: Core, key: int, slot: int) -> None:
    """Give a slot to a key."""
    core.slot[key] = slot
    core.key_in[slot] = key


def unseat(core: Core, key: int) -> int:
    """Empty a key; return its slot, NOBODY if it streamed through without one."""
    slot = core.slot[key]
    core.slot[key] = NOBODY
    core.state[key] = EMPTY
    if core.mark[key] & PREFETCHED:
        core.due[key] = -1
    return slot


def evict(core: Core, policy: Any, key: int, row: int, event: Event) -> int:
    """Remove a key from the cache; return the slot it leaves, which is not free yet."""
    core.counters[row + EVICTIONS] += 1
    if not core.mark[key] & USED:
        core.counters[row + UNUSED_EVICTIONS] += 1
        if core.mark[key] & PREFETCHED != 0:
            core.counters[row + PREFETCH_WASTED] += 1
    core.evicted_step[key] = event.step
    on_evict(policy, key, event)
    log(core, LOG_EVICT, key)
    return unseat(core, key)


def cancel(core: Core, policy: Any, key: int, row: int, event: Event) -> None:
    """Take back a prefetch that has not started; its slot becomes free."""
    core.counters[row + PREFETCH_CANCELLED] += 1
    core.hold[key] -= 1
    on_evict(policy, key, event)
    log(core, LOG_CANCEL, key)
    give_back(core, core.pool[key], unseat(core, key))


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
    if core.admission != NEVER_ADMIT:
        slot = take_free(core, pool)
        if slot == NOBODY and core.admission == FORCED:
            leaving = victim(policy, key, pool, core, event)
            if leaving == NOBODY:
                slot = wait_for_slot(core, policy, link, pool, row, event)
                if slot == NOBODY:
                    leaving = victim(policy, key, pool, core, event)
            if leaving != NOBODY:
                slot = evict(core, policy, leaving, row, event)
        if slot != NOBODY:
            seat(core, key, slot)
        else:
            core.slotless[pool] += 1
        core.state[key] = LOADING
        on_insert(policy, key, event)
    else:
        core.counters[row + BYPASSED] += 1
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
        if core.admission == BYPASS and core.slot[leaving] == NOBODY:
            core.counters[row + BYPASSED] += 1
            on_evict(policy, leaving, event)
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
    """Issue the event's prefetches, best first, while U is still held."""
    for i in range(chunk.prefetch_start[index], chunk.prefetch_start[index + 1]):
        key = chunk.prefetch_keys[i]
        if core.state[key] != EMPTY:
            core.counters[row + PREFETCH_REDUNDANT] += 1
            continue
        pool = core.pool[key]
        slot = take_free(core, pool)
        if slot == NOBODY:
            core.guard[0] = chunk.prefetch_due[i] if core.guarded else -1
            leaving = victim(policy, key, pool, core, event)
            core.guard[0] = -1
            if leaving == NOBODY:
                core.counters[row + PREFETCH_DROPPED] += 1
                continue
            slot = evict(core, policy, leaving, row, event)
        seat(core, key, slot)
        log(core, LOG_PREFETCH, key)
        core.counters[row + PREFETCH_ISSUED] += 1
        core.state[key] = LOADING
        core.hold[key] += 1
        core.mark[key] = FETCHED_EVER | PREFETCHED
        core.due[key] = chunk.prefetch_due[i]
        on_prefetch(policy, key, event)
        prefetch(link, core, key, chunk.prefetch_score[i], event)


def count_hit(core: Core, key: int, row: int) -> int:
    """Classify a hit; 1 if the key was used before in this stay, 0 if a prefetch brought it."""
    if core.mark[key] & USED != 0:
        return 1
    core.mark[key] |= USED
    core.due[key] = -1
    core.counters[row + PREFETCH_HITS] += 1
    return 0


def serve(core: Core, policy: Any, link: Any, chunk: Chunk, index: int, event: Event) -> None:
    """Serve one event: classify U once, fetch what is missing, prefetch, release U."""
    row = (event.phase * event.num_layers + event.layer) * NUM_COUNTERS
    state, hold, keys = core.state, core.hold, event.keys
    core.guard[1] = event.clock
    settle(link, core, event)
    on_event(policy, event)

    missing, reuse, tokens, token_hits = 0, 0, 0, 0
    for i in range(event.start, event.stop):
        key = keys[i]
        hold[key] += 1
        load = event.tokens[i]
        tokens += load
        if state[key] == READY:
            reuse += count_hit(core, key, row)
            token_hits += load
            log(core, LOG_HIT, key)
            on_use(policy, key, event)
        elif state[key] == LOADING:
            core.counters[row + LATE_HITS] += 1
            core.mark[key] |= USED
            core.due[key] = -1
            log(core, LOG_LATE, key)
            promote(link, core, key)
            on_use(policy, key, event)
        else:
            count_miss(core, key, row, event)
            core.missing[missing] = key
            missing += 1
    core.counters[row + ACCESSES] += event.stop - event.start
    core.counters[row + REUSE_HITS] += reuse
    core.counters[row + TOKEN_ACCESSES] += tokens
    core.counters[row + TOKEN_HITS] += token_hits

    wrong = withdraw(link, core, event)
    while wrong != NOBODY:
        cancel(core, policy, wrong, row, event)
        wrong = withdraw(link, core, event)
    for i in range(missing):
        admit(core, policy, link, core.missing[i], row, event)
    if len(chunk.prefetch_start) > 0:
        anticipate(core, policy, link, chunk, index, row, event)
    execute(link, core, event)

    for i in range(event.start, event.stop):
        key = keys[i]
        hold[key] -= 1
        if state[key] == LOADING:
            state[key] = READY
    for pool in range(len(core.slotless)):
        if core.slotless[pool] > 0:
            narrow(core, policy, event, row, pool)


def run(core: Core, policy: Any, link: Any, future: IntArray, chunk: Chunk, experts: int) -> None:
    """Serve all events of a chunk in order, each as a whole (the contract's default)."""
    num_layers = len(core.state) // experts
    for index in range(len(chunk.layer)):
        start, stop = chunk.start[index], chunk.start[index + 1]
        if len(chunk.next_use) > 0:
            for i in range(start, stop):
                future[chunk.keys[i]] = chunk.next_use[i]
        event = Event(
            chunk.first_clock + index,
            chunk.step[index],
            chunk.layer[index],
            chunk.phase[index],
            start,
            stop,
            chunk.keys,
            chunk.tokens,
            chunk.gates,
            num_layers,
            experts,
            future,
        )
        serve(core, policy, link, chunk, index, event)


def run_sequential(
    core: Core, policy: Any, link: Any, future: IntArray, chunk: Chunk, experts: int
) -> None:
    """Serve access by access, each an event of its own, as classic cache simulators do."""
    num_layers = len(core.state) // experts
    for index in range(len(chunk.layer)):
        start, stop = chunk.start[index], chunk.start[index + 1]
        row = (chunk.phase[index] * num_layers + chunk.layer[index]) * NUM_COUNTERS
        reuse = 0
        for i in range(start, stop):
            key = chunk.keys[i]
            if len(chunk.next_use) > 0:
                future[key] = chunk.next_use[i]
            event = Event(
                chunk.first_clock + i,
                chunk.step[index],
                chunk.layer[index],
                chunk.phase[index],
                i,
                i + 1,
                chunk.keys,
                chunk.tokens,
                chunk.gates,
                num_layers,
                experts,
                future,
            )
            on_event(policy, event)
            if core.state[key] == READY:
                reuse += count_hit(core, key, row)
                log(core, LOG_HIT, key)
                on_use(policy, key, event)
            else:
                count_miss(core, key, row, event)
                admit(core, policy, link, key, row, event)
                if core.state[key] == LOADING:
                    core.state[key] = READY
                if core.slotless[core.pool[key]] > 0:
                    narrow(core, policy, event, row, core.pool[key])
        core.counters[row + ACCESSES] += stop - start
        core.counters[row + REUSE_HITS] += reuse
        core.counters[row + TOKEN_ACCESSES] += stop - start
        core.counters[row + TOKEN_HITS] += reuse
