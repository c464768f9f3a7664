"""The state of the cache and of a stretch of events, as plain arrays, and its smallest changes.

Life of a key: EMPTY -> LOADING (demand or prefetch) -> READY -> EMPTY. A key is *held* (may not
leave) while its event lasts, while it is loading and while a kernel may read it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from specmd.core.event import NOBODY, FloatArray, IntArray, KeyArray, World

EMPTY, LOADING, READY = 0, 1, 2
# GATED: as FORCED, where an admission policy lets it; FROZEN: nothing enters or leaves, ever.
FORCED, GATED, BYPASS, NEVER_ADMIT, FROZEN = range(5)

# Marks of a key. USED and PREFETCHED speak of its present stay; BEFORE says of a prefetched key
# that it had been fetched already, should the prefetch be cancelled.
FETCHED_EVER, USED, PREFETCHED, BEFORE = 1, 2, 4, 8

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
HOST_EXPERTS = 17
# Of runs that change what is executed (`specmd.core.execution`), or where.
TRUE_ACCESSES = 18
TRUE_HITS = 19
REROUTED = 20
LOWBIT_FETCHES = 21
LOWBIT_HITS = 22
SUBSTITUTED = 23
DROPPED = 24
SUBSTITUTE_USES = 25
ROWS = 26
CHANGED_ROWS = 27
DEFERRED = 28  # of HOST_EXPERTS
NUM_COUNTERS = 29

# Entries of the decision log; a miss is fetched, or answered otherwise. From LOG_EVICT on, a key
# leaves, or does not come; from LOG_LOWBIT on, it comes otherwise than as it is.
LOG_HIT, LOG_LATE, LOG_FETCH, LOG_PREFETCH = range(1, 5)
LOG_EVICT, LOG_BYPASS, LOG_CANCEL, LOG_HOST = range(5, 9)
LOG_LOWBIT, LOG_SUBSTITUTE, LOG_DROP, LOG_STAND_IN, LOG_DEFER = range(9, 14)


class Core(NamedTuple):
    """State of the cache. `keys` = layers * experts; see `World`."""

    state: IntArray  # (keys,) EMPTY, LOADING, READY
    hold: IntArray  # (keys,) reasons why the key may not leave
    mark: IntArray  # (keys,) bits FETCHED_EVER, USED, PREFETCHED, BEFORE
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
    guard: IntArray  # [due limit of the prefetch being placed, clock, step, prefetches in it]
    counters: IntArray  # (2 * layers * NUM_COUNTERS,)
    digest: IntArray  # running hash of the decision log, two lanes of 32 bits
    admission: IntArray  # (1,) FORCED, GATED, BYPASS, NEVER_ADMIT or FROZEN
    guarded: int
    execution: Any  # `specmd.core.execution.Execution`, or () where the true choice is fetched
    gate: Any = ()  # state of the admission policy, if it has hooks
    budget: int = 0  # prefetches issued in a step at most; 0: no limit
    staging: Any = ()  # `specmd.core.staging.Staging`, where there is any


class Choices(NamedTuple):
    """What the tokens of a stretch chose, as flat arrays, by token, layer and rank."""

    token_start: IntArray  # (steps + 1,) where each step's tokens begin
    ids: IntArray  # (tokens * layers * top_k,) experts, -1 where a token chose fewer
    weights: FloatArray  # the same
    logits: FloatArray  # (tokens * layers * experts,), or empty
    layers: int


NO_CHOICES = Choices(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0), 1)


class Chunk(NamedTuple):
    """A stretch of events in execution order, as flat arrays."""

    clock: IntArray  # (1,) of the first event
    step: KeyArray  # (events,)
    layer: KeyArray  # (events,)
    phase: KeyArray  # (events,)
    start: IntArray  # (events + 1,) where each event's keys begin
    keys: KeyArray
    tokens: KeyArray
    gates: FloatArray  # empty unless the policy needs them
    next_use: IntArray  # clock of each key's next use; empty unless the policy needs it
    prefetch_start: IntArray  # (events + 1,), or empty without a prefetcher
    prefetch_keys: KeyArray
    prefetch_due: IntArray  # clock of the event a prefetch is meant for
    prefetch_score: FloatArray
    num_layers: int
    num_experts: int
    choices: Choices = NO_CHOICES  # of the tokens; nothing unless they may be changed


def create_core(
    world: World, admission: int = FORCED, guarded: bool = False, execution: Any = ()
) -> Core:
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
        pool=world.pool,
        missing=np.zeros(keys, np.uint32),
        guard=np.array([-1, 0, -1, 0], np.int64),
        counters=np.zeros(2 * world.num_layers * NUM_COUNTERS, np.int64),
        digest=np.array([0x2545F491, 0x1B873593], np.int64),
        admission=np.array([admission], np.int64),
        guarded=int(guarded),
        execution=execution,
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


def spelled(core: Core) -> str:
    """Write the digest of the decisions so far."""
    return "".join(f"{int(lane):08x}" for lane in core.digest)


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


def preload(core: Core, keys: Iterable[int]) -> None:
    """Make keys resident before the first event, as if used already."""
    for key in keys:
        seat(core, key, take_free(core, core.pool[key]))
        core.state[key] = READY
        core.mark[key] = FETCHED_EVER | USED


def unseat(core: Core, key: int) -> int:
    """Empty a key; return its slot, NOBODY if it streamed through without one."""
    slot = core.slot[key]
    core.slot[key] = NOBODY
    core.state[key] = EMPTY
    if core.mark[key] & PREFETCHED:
        core.due[key] = -1
    return slot
