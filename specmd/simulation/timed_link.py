"""The link of a timed simulation: one compute timeline, one host-to-device link, one clock.

A transfer costs `latency + bytes / bandwidth` and is moved in chunks. Demand goes ahead of queued
prefetches at the next chunk boundary, so it waits for at most one chunk; what it interrupts resumes
where it stopped. A layer computes its attention and router first; its READY experts follow while
missing ones stream in, each computed no sooner than it has arrived (`miss=block` computes nothing
before all that has room is there).

Device memory is that of the slots and of a few *staging* slots, as in the live cache, and no more.
What gets no slot passes through the staging slots, one after the other, and can only be copied when
the expert before it there is computed; in an event wider than the cache, whose slots all hold
experts of the event, each of these makes room as well once it is computed.

Transfers are settled lazily, when the next event's routing is known: between two events nothing
else can happen to them.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np

from specmd.core.event import NOBODY, Event, FloatArray, IntArray, KeyArray
from specmd.core.state import FORCED, Core, land
from specmd.runs.metrics import PART_COLUMN
from specmd.runs.options import STAGING_SLOTS
from specmd.simulation.costs import CostCoefficients, expert_s, layer_s, step_s, transfer_s

# Entries of `TimedLink.time`, in seconds.
NOW, ROUTED, LINK_FREE, STARTED, BUSY = range(5)
# Entries of `TimedLink.count`.
QUEUED, DEMANDED, UNDER_WAY, LAST_STEP = range(4)
# How a key of this event is wanted.
READY_KEY, LATE_KEY, MISSED_KEY = 0, 1, 2
# Columns of `TimedLink.parts`.
COMPUTE, OVERHEAD = PART_COLUMN["compute"], PART_COLUMN["overhead"]
DEMAND_STALL, LATE_STALL = PART_COLUMN["demand_stall"], PART_COLUMN["late_prefetch_stall"]
NUM_PARTS = len(PART_COLUMN)


class TimedLink(NamedTuple):
    """Times are absolute seconds from the start of the run."""

    costs: CostCoefficients
    expert_bytes: float
    time: FloatArray  # NOW, ROUTED, LINK_FREE, STARTED, BUSY
    count: IntArray  # type: ignore[assignment]  # QUEUED, DEMANDED, key + 1 under way, last step seen
    queue: KeyArray  # (keys,) prefetches not under way, in order of issue
    score: FloatArray  # (keys,)
    issued: FloatArray  # (keys,) when the prefetch was issued
    remaining: FloatArray  # (keys,) seconds of transfer left
    started: IntArray  # (keys,) 1 once bytes have moved
    demand: KeyArray  # (keys,) this event's late and missed keys, in order of transfer
    wanted: IntArray  # (keys,) READY_KEY, LATE_KEY or MISSED_KEY, in this event
    tokens: IntArray  # (keys,) tokens of the key, in this event
    arrival: FloatArray  # (keys,) of the demanded keys
    done: FloatArray  # (keys,) when the i-th expert of the event was computed
    step_tokens: FloatArray  # (steps,) new tokens
    step_context: FloatArray  # (steps,) mean context a token attends to
    step_kv: FloatArray  # (steps,) context summed over requests
    step_logits: FloatArray  # (steps,) tokens whose logits are computed
    parts: FloatArray  # (steps * NUM_PARTS,)
    by_score: int
    cancels: int
    blocks: int
    staging: int

    @classmethod
    def create(
        cls,
        num_keys: int,
        costs: CostCoefficients,
        expert_bytes: float,
        loads: tuple[FloatArray, ...],
        *,
        by_score: bool,
        cancels: bool,
        blocks: bool,
        staging: int = STAGING_SLOTS,
    ) -> TimedLink:
        """Build an idle link; `loads` are the arrays of `specmd.simulation.loads.step_loads`."""
        keys, seconds, numbers = (
            np.zeros(num_keys + 1, kind) for kind in (np.uint32, np.float64, np.int64)
        )
        count = np.zeros(4, np.int64)
        count[LAST_STEP] = -1
        return cls(
            costs=costs,
            expert_bytes=expert_bytes,
            time=np.zeros(5),
            count=count,
            queue=keys.copy(),
            score=seconds.copy(),
            issued=seconds.copy(),
            remaining=seconds.copy(),
            started=numbers.copy(),
            demand=keys.copy(),
            wanted=numbers.copy(),
            tokens=numbers.copy(),
            arrival=seconds.copy(),
            done=seconds.copy(),
            step_tokens=loads[0],
            step_context=loads[1],
            step_kv=loads[2],
            step_logits=loads[3],
            parts=np.zeros(len(loads[0]) * NUM_PARTS),
            by_score=int(by_score),
            cancels=int(cancels),
            blocks=int(blocks),
            staging=staging,
        )

    def drain(self) -> None:
        """Drop all queued and running prefetches: the cache is being emptied."""
        self.count[QUEUED] = 0
        self.count[UNDER_WAY] = 0

    def settle(self, core: Core, event: Event) -> None:
        """Compute up to this event's router; land the prefetches that have arrived by then."""
        row = event.step * NUM_PARTS
        tokens = self.step_tokens[event.step]
        if event.step != self.count[LAST_STEP]:
            self.count[LAST_STEP] = event.step
            head = step_s(self.costs, self.step_logits[event.step])
            spend(self, row, head, self.costs.step_launch_s)
        dense = layer_s(self.costs, tokens, self.step_context[event.step], self.step_kv[event.step])
        spend(self, row, dense, self.costs.layer_launch_s)
        now = self.time[NOW]
        self.time[ROUTED] = now
        while self.count[UNDER_WAY] > 0 or self.count[QUEUED] > 0:
            if self.count[UNDER_WAY] == 0:
                start_next(self)
            key = self.count[UNDER_WAY] - 1
            finish = self.time[STARTED] + self.remaining[key]
            if finish > now:
                break
            finish_under_way(self, core, finish)

    def promote(self, core: Core, key: int) -> None:
        """Move a loading prefetch to the demand list; one under way goes on uninterrupted."""
        self.wanted[key] = LATE_KEY
        if self.count[UNDER_WAY] == key + 1:
            for i in range(self.count[DEMANDED], 0, -1):
                self.demand[i] = self.demand[i - 1]
            self.demand[0] = key
        else:
            position = 0
            while self.queue[position] != key:
                position += 1
            unqueue(self, position)
            self.demand[self.count[DEMANDED]] = key
        self.count[DEMANDED] += 1

    def withdraw(self, core: Core, event: Event) -> int:
        """Unqueue a prefetch meant for this event that is not in U and has not started."""
        if self.cancels:
            for i in range(self.count[QUEUED]):
                key = self.queue[i]
                if core.due[key] <= event.clock and core.hold[key] == 1 and self.started[key] == 0:
                    unqueue(self, i)
                    return key
        return NOBODY

    def reclaim(self, core: Core, pool: int) -> int:
        """Unqueue the last queued prefetch of the pool that has not started."""
        for i in range(self.count[QUEUED] - 1, -1, -1):
            key = self.queue[i]
            if core.pool[key] == pool and self.started[key] == 0:
                unqueue(self, i)
                return key
        return NOBODY

    def await_landing(self, core: Core, pool: int) -> bool:
        """Let the transfers of prefetches go on until one into the pool has landed."""
        while self.count[UNDER_WAY] > 0 or self.count[QUEUED] > 0:
            if self.count[UNDER_WAY] == 0:
                start_next(self)
            key = self.count[UNDER_WAY] - 1
            if self.wanted[key] == LATE_KEY:
                return False
            finish_under_way(self, core, self.time[STARTED] + self.remaining[key])
            if core.pool[key] == pool:
                return True
        return False

    def fetch(self, core: Core, key: int, event: Event) -> None:
        """Append to this event's demand transfers."""
        self.wanted[key] = MISSED_KEY
        self.remaining[key] = transfer_s(self.costs, self.expert_bytes)
        self.demand[self.count[DEMANDED]] = key
        self.count[DEMANDED] += 1

    def prefetch(self, core: Core, key: int, score: float, event: Event) -> None:
        """Queue a transfer at the moment the routing was known."""
        self.score[key] = score
        self.issued[key] = self.time[ROUTED]
        self.remaining[key] = transfer_s(self.costs, self.expert_bytes)
        self.started[key] = 0
        self.queue[self.count[QUEUED]] = key
        self.count[QUEUED] += 1
        spend(self, event.step * NUM_PARTS, self.costs.transfer_s, self.costs.transfer_s)

    def execute(self, core: Core, event: Event) -> None:
        """Transfer the demanded keys, compute all of U, advance the clock to the event's end."""
        row = event.step * NUM_PARTS
        for i in range(event.start, event.stop):
            self.tokens[event.keys[i]] = event.tokens[i]
        demanded = self.count[DEMANDED]
        blocked = self.blocks
        computed = 0 if blocked else compute_ready(self, event, row)
        if demanded > 0:
            yield_link(self, core)
        passing = first = waited = missed = 0
        for i in range(demanded):
            key = self.demand[i]
            start = begin_s(self, self.time[ROUTED])
            if core.slot[key] == NOBODY:
                if passing == 0 and core.admission[0] != FORCED:
                    first = event.stop - event.start - demanded + i  # slots make no room
                if passing >= self.staging:
                    if blocked:
                        blocked = 0
                        computed = compute_ready(self, event, row)
                        for j in range(i):
                            compute(self, row, self.demand[j], computed)
                            computed += 1
                    start = max(start, self.done[first + passing - self.staging])
                passing += 1
            finish = start + self.remaining[key]
            if self.count[UNDER_WAY] == key + 1:
                finish = self.time[STARTED] + self.remaining[key]
                self.count[UNDER_WAY] = 0
                start = self.time[STARTED]
            self.time[LINK_FREE] = finish
            self.time[BUSY] += finish - start
            self.arrival[key] = finish
            if finish > self.time[NOW]:
                part = LATE_STALL if self.wanted[key] == LATE_KEY else DEMAND_STALL
                self.parts[row + part] += finish - self.time[NOW]
                self.time[NOW] = finish
                waited = 1
            if self.wanted[key] == LATE_KEY:
                land(core, key)
            else:
                missed += 1
            if not blocked:
                compute(self, row, key, computed)
                computed += 1
        # Behind the last copy: what is lost between two of them passes while the next one moves.
        lost_s = self.costs.resume_s * waited + self.costs.fetch_s * missed
        spend(self, row, lost_s, lost_s)
        if blocked:
            for i in range(event.start, event.stop):
                compute(self, row, event.keys[i], i - event.start)
        for i in range(demanded):
            self.wanted[self.demand[i]] = READY_KEY
        self.count[DEMANDED] = 0


def compute(clock: TimedLink, row: int, key: int, position: int) -> None:
    """Compute an expert, the event's `position`-th."""
    spend(clock, row, expert_s(clock.costs, clock.tokens[key]), clock.costs.launch_s)
    clock.done[position] = clock.time[NOW]


def compute_ready(clock: TimedLink, event: Event, row: int) -> int:
    """Compute what is there from the start; return how many that are."""
    computed = 0
    for i in range(event.start, event.stop):
        if clock.wanted[event.keys[i]] == READY_KEY:
            compute(clock, row, event.keys[i], computed)
            computed += 1
    return computed


def spend(clock: TimedLink, row: int, seconds: float, launch_s: float) -> None:
    """Advance the compute timeline; the launch part of `seconds` is overhead."""
    if seconds > 0.0:
        clock.parts[row + COMPUTE] += seconds - launch_s
        clock.parts[row + OVERHEAD] += launch_s
        clock.time[NOW] += seconds


def begin_s(clock: TimedLink, asked_s: float) -> float:
    """When a transfer asked for at a time begins: at once on a busy link, an idle one must wake."""
    free_s = clock.time[LINK_FREE]
    return free_s if free_s >= asked_s else asked_s + clock.costs.wake_s


def unqueue(clock: TimedLink, position: int) -> None:
    """Remove the entry at a position of the prefetch queue."""
    clock.count[QUEUED] -= 1
    for i in range(position, clock.count[QUEUED]):
        clock.queue[i] = clock.queue[i + 1]


def start_next(clock: TimedLink) -> None:
    """Put the next prefetch under way: a started one first, then by score or in order of issue."""
    best = 0
    if clock.by_score and clock.started[clock.queue[0]] == 0:
        for i in range(1, clock.count[QUEUED]):
            if clock.score[clock.queue[i]] > clock.score[clock.queue[best]]:
                best = i
    key = clock.queue[best]
    unqueue(clock, best)
    clock.count[UNDER_WAY] = key + 1
    clock.started[key] = 1
    clock.time[STARTED] = begin_s(clock, clock.issued[key])


def finish_under_way(clock: TimedLink, core: Core, finish: float) -> None:
    """Land the prefetch under way at a time."""
    key = clock.count[UNDER_WAY] - 1
    clock.time[BUSY] += finish - clock.time[STARTED]
    clock.time[LINK_FREE] = finish
    clock.count[UNDER_WAY] = 0
    land(core, key)


def yield_link(clock: TimedLink, core: Core) -> None:
    """Interrupt the prefetch under way at its next chunk boundary, unless it is demanded."""
    if clock.count[UNDER_WAY] == 0:
        return
    key = clock.count[UNDER_WAY] - 1
    if clock.wanted[key] != READY_KEY:
        return
    chunk_s = clock.costs.chunk_bytes / clock.costs.bytes_per_s
    left = clock.time[STARTED] + clock.remaining[key] - clock.time[ROUTED]
    # Chunks are counted from the end: the last one ends with the transfer.
    stays = (
        min(max(0.0, ceil(left / chunk_s) - 1.0) * chunk_s, clock.remaining[key])
        if chunk_s > 0.0
        else 0.0
    )
    boundary = clock.time[STARTED] + clock.remaining[key] - stays
    if stays <= 0.0:
        finish_under_way(clock, core, boundary)
        return
    clock.time[BUSY] += boundary - clock.time[STARTED]
    clock.time[LINK_FREE] = boundary
    clock.remaining[key] = stays
    clock.issued[key] = boundary
    clock.count[UNDER_WAY] = 0
    for i in range(clock.count[QUEUED], 0, -1):
        clock.queue[i] = clock.queue[i - 1]
    clock.queue[0] = key
    clock.count[QUEUED] += 1
