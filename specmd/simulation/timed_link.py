"""The link of a timed simulation: a compute timeline a device, and lanes that carry experts to it.

A transfer costs `latency + bytes / bandwidth` (`specmd.simulation.lanes`), on both its hops where
experts come from a disk through a cache in host memory (`specmd.simulation.chain`). A layer
computes its attention and router first; its READY experts follow while missing ones stream in, each
computed no sooner than it has arrived (`miss=block` computes nothing before all that has room is
there). A wait for an expert is the disk's until it is whole in the host, then the link's.

What the host computes it computes beside the device (`specmd.simulation.host_lane`).

Device memory is that of the slots and of a few *staging* slots, as in the live cache, and no more.
What gets no slot passes through the staging slots, one after the other, and can only be copied when
the expert before it there is computed; in an event wider than the cache, whose slots all hold
experts of the event, each of these makes room as well once it is computed.

Transfers are settled lazily, when the next event's routing is known: between two events nothing
else can happen to them.
"""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple, Self

import numpy as np

from specmd.core.event import NOBODY, Event, FloatArray, IntArray, KeyArray
from specmd.core.hooks import compute_on_host, moved_bytes, staged
from specmd.core.state import FORCED, Core, land
from specmd.policy.schedule import Schedule
from specmd.runs.options import STAGING_SLOTS
from specmd.simulation.costs import (
    CostCoefficients,
    host_expert_s,
    in_prefill,
    layer_s,
    predicting_s,
    step_s,
    transfer_s,
)
from specmd.simulation.deadlines import arrives_in_time, note_event
from specmd.simulation.host_lane import await_host
from specmd.simulation.lanes import (
    IDLE,
    Lanes,
    advance,
    begin_s,
    carry,
    end_s,
    enqueue,
    finish,
    interrupt,
    make_lanes,
    start_next,
    take,
    unqueue,
)
from specmd.simulation.timeline import (
    DEMAND_STALL,
    DEVICE,
    DISK_STALL,
    HOST_KEY,
    LATE_KEY,
    LATE_STALL,
    LATER_KEY,
    MISSED_KEY,
    NUM_PARTS,
    READY_KEY,
    TRAIL,
    compute,
    compute_ready,
    costs_of,
    count_ready,
    remember,
    spend,
)

LINK = 0  # the lane that leads to it
# Entries of `TimedLink.count`.
DEMANDED, LAST_STEP = range(2)


class TimedLink(NamedTuple):
    """Times are absolute seconds from the start of the run."""

    costs: CostCoefficients  # of decode
    prefill: CostCoefficients
    size: FloatArray  # (keys,) bytes of the copy in the cache, or on its way
    whole: FloatArray  # (keys,) bytes of the expert
    lanes: Lanes
    tier: Any  # what lies behind the link (`specmd.simulation.chain`), or nothing
    step: IntArray  # (keys,) in which the transfer was asked for
    phase: IntArray  # (keys,)
    open_s: FloatArray  # (1,) since when nothing waits for the link
    order: KeyArray  # (keys,) scratch: this event's demands
    now_s: FloatArray  # (devices,) until when it has computed
    routed_s: FloatArray  # (devices,) when the event's routing was known
    count: IntArray  # type: ignore[assignment]  # demanded, last step seen
    demand: KeyArray  # (keys,) this event's late and missed keys, in order of transfer
    host_s: FloatArray  # (devices,) until when the host computes
    owed_s: FloatArray  # (devices,) until when it computes what this event waits for
    given_s: FloatArray  # (devices,) until when that of it is read which the last event put off
    wanted: IntArray  # (keys,) READY_KEY, LATE_KEY, MISSED_KEY, HOST_KEY, LATER_KEY, in this event
    tokens: IntArray  # (keys,) tokens of the key, in this event
    arrival: FloatArray  # (keys,) of the demanded keys
    done: FloatArray  # (keys,) when the i-th expert of the event was computed
    passed: IntArray  # (keys,) place in the event of the i-th that passes through
    step_tokens: FloatArray  # (steps,) new tokens
    step_context: FloatArray  # (steps,) mean context a token attends to
    step_kv: FloatArray  # (steps,) context summed over requests
    step_logits: FloatArray  # (steps,) tokens whose logits are computed
    parts: FloatArray  # (steps * NUM_PARTS,)
    trail: FloatArray  # (TRAIL * layers * NUM_PARTS,) parts of the last steps when a layer was done
    missed: IntArray  # (keys,) demand fetches, and what the host was asked to compute
    late: IntArray  # (keys,) prefetches that were demanded under way
    ahead: IntArray  # (keys,) prefetches, but those that were cancelled
    pace_s: FloatArray  # (3,) of events, see `specmd.simulation.deadlines`
    cancels: int
    drops_late: int
    blocks: int
    staging: int

    @classmethod
    def create(
        cls,
        size: FloatArray,
        costs: CostCoefficients,
        loads: tuple[FloatArray, ...],
        *,
        schedule: Schedule,
        blocks: bool,
        staging: int = STAGING_SLOTS,
        disk: bool = False,
        layers: int = 0,
    ) -> Self:
        """Build an idle link.

        `size` are the bytes of each key; `loads` are those of `specmd.trace.contexts.step_loads`.
        `disk` adds a lane for one, see `specmd.simulation.chain`. The trail is of so many `layers`.
        """
        num_keys = len(size)
        keys, seconds, numbers = (
            np.zeros(num_keys + 1, kind) for kind in (np.uint32, np.float64, np.int64)
        )
        return cls(
            costs=costs,
            prefill=in_prefill(costs),
            size=size.copy(),
            whole=size,
            lanes=make_lanes(num_keys, costs, schedule, disk=disk),
            tier=(),
            step=numbers.copy(),
            phase=numbers.copy(),
            open_s=np.zeros(1),
            order=keys.copy(),
            now_s=np.zeros(1),
            routed_s=np.zeros(1),
            host_s=np.zeros(1),
            owed_s=np.zeros(1),
            given_s=np.zeros(1),
            count=np.array([0, -1]),
            demand=keys.copy(),
            wanted=numbers.copy(),
            tokens=numbers.copy(),
            arrival=seconds.copy(),
            done=seconds.copy(),
            passed=numbers.copy(),
            step_tokens=loads[0],
            step_context=loads[1],
            step_kv=loads[2],
            step_logits=loads[3],
            parts=np.zeros(len(loads[0]) * NUM_PARTS),
            trail=np.zeros(TRAIL * layers * NUM_PARTS),
            missed=numbers.copy()[:num_keys],
            late=numbers.copy()[:num_keys],
            ahead=numbers.copy()[:num_keys],
            pace_s=np.zeros(3),
            cancels=int(schedule.cancel),
            drops_late=int(schedule.drop_late),
            blocks=int(blocks),
            staging=staging,
        )

    def drain(self) -> None:
        """Drop all queued and running prefetches: the cache is being emptied."""
        for lane in range(len(self.lanes.queued)):
            self.lanes.queued[lane] = 0
            self.lanes.under_way[lane] = IDLE

    def settle(self, core: Core, event: Event) -> None:
        """Compute up to this event's router; land the prefetches that have arrived by then."""
        row = event.step * NUM_PARTS
        tokens = self.step_tokens[event.step]
        costs = costs_of(self, event)
        if event.step != self.count[LAST_STEP]:
            self.count[LAST_STEP] = event.step
            spend(self, row, step_s(costs, self.step_logits[event.step]), costs.step_launch_s)
        dense = layer_s(costs, tokens, self.step_context[event.step], self.step_kv[event.step])
        spend(self, row, dense + costs.decide_s, costs.layer_launch_s + costs.decide_s)
        left = event.num_layers - 1 - event.layer
        spend(self, row, predicting_s(costs, tokens, left), min(costs.asks, left) * costs.kernel_s)
        self.routed_s[DEVICE] = self.now_s[DEVICE]
        note_event(self.pace_s, self.routed_s[DEVICE])
        land_prefetches(self, core)

    def promote(self, core: Core, key: int) -> None:
        """Move a loading prefetch to the demand list; one under way goes on uninterrupted."""
        self.wanted[key] = LATE_KEY
        self.late[key] += 1
        if self.lanes.under_way[self.lanes.lane[key]] == key:
            for i in range(self.count[DEMANDED], 0, -1):
                self.demand[i] = self.demand[i - 1]
            self.demand[0] = key
        else:
            take(self.lanes, key)
            self.demand[self.count[DEMANDED]] = key
            set_out_late(self, key)
        self.count[DEMANDED] += 1

    def withdraw(self, core: Core, event: Event) -> int:
        """Unqueue a prefetch meant for this event that is not in U and has not started."""
        lanes = self.lanes
        if self.cancels:
            for lane in range(len(lanes.queued)):
                for i in range(lanes.queued[lane]):
                    key = lanes.queue[lane * lanes.keys + i]
                    meant = core.due[key] <= event.clock and core.hold[key] <= 1 + staged(core, key)
                    if meant and lanes.started[key] == 0:
                        unqueue(lanes, lane, i)
                        self.ahead[key] -= 1
                        return key
        return NOBODY

    def reclaim(self, core: Core, pool: int) -> int:
        """Unqueue the last queued prefetch of the pool that has not started."""
        lanes = self.lanes
        for lane in range(len(lanes.queued)):
            for i in range(lanes.queued[lane] - 1, -1, -1):
                key = lanes.queue[lane * lanes.keys + i]
                if core.pool[key] == pool and lanes.started[key] == 0:
                    unqueue(lanes, lane, i)
                    self.ahead[key] -= 1
                    return key
        return NOBODY

    def await_landing(self, core: Core, pool: int) -> bool:
        """Let the transfers of prefetches go on until one into the pool has landed."""
        return land_into(self, core, pool)

    def fetch(self, core: Core, key: int, event: Event) -> None:
        """Append to this event's demand transfers."""
        self.wanted[key] = MISSED_KEY
        self.missed[key] += 1
        self.size[key] = moved_bytes(core, key, self.whole[key])
        self.step[key], self.phase[key] = event.step, event.phase
        set_out(self, key)
        self.demand[self.count[DEMANDED]] = key
        self.count[DEMANDED] += 1

    def compute_on_host(self, core: Core, key: int, tokens: int, event: Event) -> None:
        """Let the host compute an expert, behind those it was asked for before."""
        begin = max(self.host_s[DEVICE], self.now_s[DEVICE])
        self.host_s[DEVICE] = begin + host_expert_s(self.costs, tokens, self.whole[key])
        self.owed_s[DEVICE] = self.host_s[DEVICE]
        self.wanted[key] = HOST_KEY
        self.missed[key] += 1

    def defer(self, core: Core, key: int, tokens: int, event: Event) -> None:
        """Let the host compute an expert; the next event waits for it."""
        owed_s = self.owed_s[DEVICE]
        compute_on_host(self, core, key, tokens, event)
        self.owed_s[DEVICE] = owed_s
        self.wanted[key] = LATER_KEY

    def in_time(self, core: Core, key: int, due: int, event: Event) -> bool:
        """Tell whether a prefetch is worth issuing, where what comes late is not."""
        return self.drops_late == 0 or arrives_in_time(self, core, key, due, event)

    def prefetch(self, core: Core, key: int, score: float, event: Event) -> None:
        """Queue a transfer at the moment the routing was known."""
        self.lanes.due[key] = core.due[key]
        self.step[key], self.phase[key] = event.step, event.phase
        self.ahead[key] += 1
        self.size[key] = self.whole[key]
        self.lanes.lane[key] = len(self.lanes.queued) - 1  # where the chain begins
        seconds = transfer_s(self.costs, self.size[key])
        enqueue(self.lanes, key, score, self.routed_s[DEVICE], seconds)
        spend(self, event.step * NUM_PARTS, self.costs.transfer_s, self.costs.transfer_s)

    def execute(self, core: Core, event: Event) -> None:
        """Transfer the demanded keys, compute all of U, advance the clock to the event's end."""
        row = event.step * NUM_PARTS
        for i in range(event.start, event.stop):
            self.tokens[event.keys[i]] = event.tokens[i]
        demanded = self.count[DEMANDED]
        blocked = self.blocks
        computed = 0 if blocked else compute_ready(self, event)
        lanes = self.lanes
        if demanded > 0:
            line_up(self, core, demanded)
        ready = computed if not blocked else count_ready(self, event)
        passing = waited = missed = 0
        for i in range(demanded):
            key = self.demand[i]
            whole_s = whole_in_host_s(self, core, key)
            start = begin_s(lanes, LINK, whole_s)
            if core.slot[key] == NOBODY:
                # Slots make no room but under forced admission, where all are of this event.
                self.passed[passing] = passing if core.admission[0] == FORCED else ready + i
                if passing >= self.staging:
                    if blocked:
                        blocked = 0
                        computed = compute_ready(self, event)
                        for j in range(i):
                            compute(self, event, self.demand[j], computed)
                            computed += 1
                    start = max(start, self.done[self.passed[passing - self.staging]])
                passing += 1
            arrived = start + lanes.remaining_s[key]
            if lanes.under_way[LINK] == key:
                start, arrived = lanes.begun_s[LINK], end_s(lanes, LINK)
                lanes.under_way[LINK] = IDLE
            carry(lanes, LINK, start, arrived)
            self.arrival[key] = arrived
            if whole_s > self.now_s[DEVICE]:
                self.parts[row + DISK_STALL] += whole_s - self.now_s[DEVICE]
                self.now_s[DEVICE] = whole_s
                waited = 1
            if arrived > self.now_s[DEVICE]:
                part = LATE_STALL if self.wanted[key] == LATE_KEY else DEMAND_STALL
                self.parts[row + part] += arrived - self.now_s[DEVICE]
                self.now_s[DEVICE] = arrived
                waited = 1
            if self.wanted[key] == LATE_KEY:
                land(core, key)
            else:
                missed += 1
            if not blocked:
                compute(self, event, key, computed)
                computed += 1
        # Behind the last copy: what is lost between two of them passes while the next one moves.
        lost_s = self.costs.resume_s * waited + self.costs.fetch_s * missed
        spend(self, row, lost_s, lost_s)
        if blocked:
            for i in range(event.start, event.stop):
                compute(self, event, event.keys[i], i - event.start)
        for i in range(demanded):
            self.wanted[self.demand[i]] = READY_KEY
        if self.host_s[DEVICE] > self.routed_s[DEVICE]:
            await_host(self, event)
        self.count[DEMANDED] = 0
        remember(self, event)


# What a chain does otherwise (`specmd.simulation.chain.ChainedLink`).


def set_out(clock: TimedLink, key: int) -> None:
    """Begin a demanded transfer."""
    clock.lanes.remaining_s[key] = transfer_s(clock.costs, clock.size[key])


def set_out_late(clock: TimedLink, key: int) -> None:
    """Begin a prefetch that has been demanded before anything of it, or the rest, moved."""


def land_prefetches(clock: TimedLink, core: Core) -> None:
    """Let prefetches go on until now."""
    advance(clock.lanes, core, LINK, clock.now_s[DEVICE])


def land_into(clock: TimedLink, core: Core, pool: int) -> bool:
    """Let prefetches go on until one has landed in a pool; False if none will."""
    lanes = clock.lanes
    while start_next(lanes, LINK, inf):
        key = lanes.under_way[LINK]
        if clock.wanted[key] == LATE_KEY:
            break
        finish(lanes, core, LINK, end_s(lanes, LINK))
        if core.pool[key] == pool:
            return True
    return False


def line_up(clock: TimedLink, core: Core, demanded: int) -> None:
    """Put this event's demands in order; a prefetch under way yields to them."""
    under_way = clock.lanes.under_way[LINK]
    if under_way != IDLE and clock.wanted[under_way] == READY_KEY:
        interrupt(clock.lanes, core, LINK, clock.routed_s[DEVICE])


def whole_in_host_s(clock: TimedLink, core: Core, key: int) -> float:
    """When a demanded key is in host memory, and may cross."""
    at_s: float = clock.routed_s[DEVICE]
    return at_s
