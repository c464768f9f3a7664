"""Schedules: staging against a reference, budgets by count, orders and shares on the lanes.

To freeze the counts anew, see `test_frozen_counts.py`.
"""

import json
import os
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from reference import EVICT, HIT, PREFETCH, Reference, core_log, random_steps

from specmd.conformance.suite import SLOW_LINK
from specmd.core import state as residency
from specmd.core.state import LOADING, READY
from specmd.policy.registry import entries
from specmd.policy.schedule import Schedule
from specmd.runs.options import RunConfig
from specmd.simulation.deadlines import LASTS, arrives_in_time, note_event
from specmd.simulation.lanes import advance, enqueue, interrupt, make_lanes
from specmd.simulation.replay import replay
from specmd.trace import load, slice_steps, synthetic

HERE = Path(__file__).parent
FROZEN = HERE / "frozen_schedules.json"
SLOW_LINK = SLOW_LINK._make(map(float, SLOW_LINK))
FAST_LINK = SLOW_LINK._replace(latency_s=0.0, bytes_per_s=1e30)
LINK = SLOW_LINK._replace(bytes_per_s=1e10)
ALL = [entry.name for entry in entries("schedule")]
ISSUED, DROPPED = residency.PREFETCH_ISSUED, residency.PREFETCH_DROPPED


class Staged(Reference):
    """The contract with slots that hold prefetches alone, `room` of each pool."""

    def __init__(self, *told, room, **more):
        super().__init__(*told, **more)
        self.room, self.stage = room, {}  # key: {"due", "used"}

    def ahead(self, pool):
        return [key for key in self.stage if key // self.per_pool == pool]

    def serve(self, now):
        count, demanded = self.count, sorted(now.tokens)
        there = [key for key in demanded if key in self.resident or key in self.stage]
        for key in demanded:
            self.know.uses[key] += 1
        count["accesses"] += len(demanded)
        count["tokens"] += sum(now.tokens.values())
        count["token_hits"] += sum(now.tokens[key] for key in there)
        for key in there:
            stay = self.resident.get(key) or self.stage[key]
            count["reuse_hits" if stay["used"] else "prefetch_hits"] += 1
            stay["used"] = True
            self.log.append((HIT, key))
            if key in self.resident:
                self.touch(key, now)
                self.rule(key).used(key, now)
        misses = [key for key in demanded if key not in there]
        for key in misses:
            kind = "compulsory"
            if key in self.ever:
                kind = "collision" if self.evicted_in.get(key) == now.step else "capacity"
            count[kind] += 1
        for key in there:
            if key in self.stage:
                self.admit(key, now)
        for key in misses:
            self.fetch(key, now)
        landing = set()
        for key, due in now.proposals:
            self.prefetch(key, due, now, landing)
        for pool in range(len(self.capacity)):
            self.narrow(pool, now, landing)

    def admit(self, key, now):
        pool = key // self.per_pool
        if len(self.residents(pool)) >= self.capacity[pool]:
            able = [other for other in self.residents(pool) if other not in now.tokens]
            leaving = self.rules[pool].victim(able, key, now)
            if leaving is None:
                return
            self.leave(leaving, now)
        del self.stage[key]
        self.enter(key, now, False)

    def prefetch(self, key, due, now, landing):
        pool = key // self.per_pool
        if key in self.resident or key in self.stage or key in now.tokens:
            self.count["redundant"] += 1
            return
        if len(self.ahead(pool)) >= self.room[pool]:
            over = [
                (-1 if stay["used"] else stay["due"], -other)
                for other, stay in self.stage.items()
                if other // self.per_pool == pool
                and other not in now.tokens
                and other not in landing
                and (stay["used"] or stay["due"] <= now.clock)
            ]
            if not over:
                self.count["dropped"] += 1
                return
            leaving = -min(over)[1]
            stay = self.stage.pop(leaving)
            self.count["evictions"] += 1
            self.count["unused_evictions"] += not stay["used"]
            self.count["wasted"] += not stay["used"]
            self.evicted_in[leaving] = now.step
            self.log.append((EVICT, leaving))
        self.log.append((PREFETCH, key))
        self.count["issued"] += 1
        self.ever.add(key)
        self.stage[key] = {"due": due, "used": False}
        landing.add(key)

    def run(self):
        log, counts = super().run()
        counts["wasted"] += sum(not stay["used"] for stay in self.stage.values())
        return log, counts


@pytest.mark.parametrize("evict", ["lru", "lfu", "fifo", "mru"])
def test_staging_decides_as_its_reference(evict):
    staged = evicted = 0
    for seed in range(40):
        trace, steps = random_steps(seed, prefetches=True)
        rng = np.random.default_rng(seed + 9)
        layers, experts = trace.header.num_layers, trace.header.num_experts
        pools, staging = layers if seed % 3 == 2 else 1, int(rng.integers(1, 9))
        slots = rng.integers(1, layers * experts // pools + 1, pools)
        room = [min(-(-staging // pools), int(each) // 2) for each in slots]
        expected, counts = Staged(
            steps,
            layers,
            experts,
            pools,
            [int(each) - own for each, own in zip(slots, room, strict=True)],
            evict,
            popularity=np.zeros(layers * experts),
            room=room,
        ).run()
        found, total, core = core_log(trace, steps, evict, slots, staging=staging)
        where = f"seed {seed} slots {slots} staging {staging}"
        assert found == expected, where
        assert total == counts, where
        staged += counts["prefetch_hits"]
        evicted += counts["evictions"]
        for pool, own in enumerate(room):
            assert core.staging.count[pool] <= own, where
    assert staged > 100 < evicted


def made(seed=3, **more):
    sizes = {"num_layers": 4, "num_experts": 8, "top_k": 2, "num_requests": 4, "batch": 2}
    lengths = {"prompt_length": 6, "decode_length": 20, "expert_bytes": 1 << 20}
    return synthetic(**sizes, **lengths, lookahead_depth=2, seed=seed, **more)


def ran(trace, schedule, *, slots=12, costs=None, **more):
    more = {"evict": "lru", "prefetch": "random:depth=3,width=3", "interpreted": True} | more
    how = {name: more.pop(name) for name in ("interpreted", "compiled") if name in more}
    config = RunConfig(capacity=str(slots), capacity_slots=slots, schedule=schedule, **more)
    return replay(trace, config, costs=costs, **how)


def alike(ours, theirs):
    return ours.decision_digest == theirs.decision_digest and (
        ours.counters.tolist() == theirs.counters.tolist()
    )


@pytest.mark.parametrize("schedule", [*ALL, "budget:most=2", "staging:slots=3"])
def test_an_infinitely_fast_link_decides_like_no_link(schedule):
    for seed in range(2):
        for more in ({}, {"scope": "layer"}, {"evict": "lfu", "reset": "request"}, {"slots": 3}):
            without, fast = (ran(made(seed), schedule, costs=c, **more) for c in (None, FAST_LINK))
            assert alike(without, fast), f"seed {seed} {more}"


@pytest.mark.parametrize(
    ("schedule", "plain"),
    [
        ("budget:most=1000000", "guard"),
        ("budget:guard=false,most=1000000", "cancel"),
        ("share:share=1", "guard"),
        ("share:guard=false,share=1", "cancel"),
    ],
)
def test_what_limits_nothing_is_what_it_is_built_on(schedule, plain):
    trace = made()
    for costs in (None, LINK, SLOW_LINK):
        for prefetch in ("random:depth=3,width=3", "next_gate:depth=2"):
            ours, theirs = (
                ran(trace, each, costs=costs, prefetch=prefetch) for each in (schedule, plain)
            )
            assert alike(ours, theirs)
            if costs is not None:
                assert (ours.step_seconds == theirs.step_seconds).all()


def test_by_deadline_is_by_score_where_all_are_due_alike():
    trace = made()
    for costs in (LINK, SLOW_LINK):
        ours, theirs = (
            ran(trace, each, costs=costs, prefetch="next_gate") for each in ("deadline", "guard")
        )
        assert alike(ours, theirs)


@pytest.mark.parametrize("costs", [None, LINK, SLOW_LINK])
def test_a_budget_is_kept_in_every_step(costs):
    trace = made()
    for most in (1, 2, 5):
        issued = 0
        for steps in range(1, trace.num_steps + 1, 7):
            counters = ran(
                slice_steps(trace, 0, steps), f"budget:most={most}", costs=costs
            ).counters
            total = int(counters[..., ISSUED].sum())
            assert total <= most * steps
            issued = max(issued, total)
        assert issued > most  # it starts again with each step
        free = ran(trace, "guard", costs=costs).counters[..., ISSUED].sum()
        assert free > issued


def test_edf_drops_what_would_come_late_and_less_comes_late():
    trace = made()
    for seed in range(3):
        edf, deadline = (
            ran(made(seed), each, costs=LINK, prefetch="oracle:depth=4")
            for each in ("edf", "deadline")
        )
        dropped, late = (
            [int(run.counters[..., column].sum()) for run in (edf, deadline)]
            for column in (DROPPED, residency.LATE_HITS)
        )
        assert dropped[0] > dropped[1], f"seed {seed}"
        assert late[0] < late[1], f"seed {seed}"
    fast, keeps = (ran(trace, each, costs=FAST_LINK) for each in ("edf", "deadline"))
    assert alike(fast, keeps)  # nothing is late


def test_how_long_events_take_is_a_fading_mean():
    pace_s = np.zeros(3)
    for routed_s in (1.0, 3.0, 5.0):
        note_event(pace_s, routed_s)
    assert pace_s[LASTS] == 2.0
    note_event(pace_s, 15.0)
    assert pace_s[LASTS] == 3.0  # an eighth of the way to 10


def test_arrival_is_expected_behind_what_goes_first():
    lanes, core = loading(Schedule(True, False, False, by_deadline=True))
    clock = SimpleNamespace(
        lanes=lanes,
        costs=SLOW_LINK._replace(latency_s=0.0, bytes_per_s=1.0),
        whole=[2.0] * 6,
        pace_s=np.array([10.0, 1.0, 5.0]),
        demand=[5],
        count=[1],
    )
    lanes.free_s[0] = 9.0
    core.due[:] = [3, 9, 0, 0, 0, 0]
    for key in (0, 1):
        enqueue(lanes, key, 0.0, 0.0, 4.0)
    lanes.remaining_s[5] = 1.0  # demanded in this event

    def in_time(due):
        return arrives_in_time(clock, core, 2, due, SimpleNamespace(clock=1))

    # 1 s for the demand, 4 s for what is due at 3, 2 s of its own; 4 s more for what is due at 9.
    assert [due for due in range(2, 14) if in_time(due)] == [8, 12, 13]


def loading(schedule):
    """Six keys that load on one lane, in chunks of a second."""
    costs = SLOW_LINK._replace(chunk_bytes=1.0, bytes_per_s=1.0)
    core = SimpleNamespace(state=[LOADING] * 6, hold=[1] * 6, due=np.zeros(6, np.int64))
    return make_lanes(6, costs, schedule), core


def landed(lanes, core, times):
    """Keys that are there at each time."""
    found = []
    for now_s in times:
        advance(lanes, core, 0, now_s)
        found.append({key for key, state in enumerate(core.state) if state == READY})
    return found


def test_prefetches_leave_the_link_alone_for_their_share():
    for share, begins in ((1.0, (0.0, 2.0, 4.0)), (0.5, (0.0, 4.0, 8.0)), (0.25, (0.0, 8.0, 16.0))):
        lanes, core = loading(Schedule(False, False, False, share=share))
        for key in range(3):
            enqueue(lanes, key, 0.0, 0.0, 2.0)
        ends = [begin + 2.0 for begin in begins]
        moments = [time for end in ends for time in (end - 0.01, end)]
        assert [len(each) for each in landed(lanes, core, moments)] == [0, 1, 1, 2, 2, 3]
        assert lanes.busy_s[0] == 6.0


def test_a_demand_does_not_wait_for_the_share():
    lanes, core = loading(Schedule(False, False, False, share=0.25))
    enqueue(lanes, 0, 0.0, 0.0, 4.0)
    advance(lanes, core, 0, 0.5)
    interrupt(lanes, core, 0, 0.5)
    assert lanes.free_s[0] == 1.0  # at the chunk's end the link is the demand's
    assert landed(lanes, core, (3.9, 4.0, 6.9, 7.0)) == [set(), set(), set(), {0}]


def test_what_is_due_first_goes_first_then_the_best():
    lanes, core = loading(Schedule(True, False, False, by_deadline=True))
    lanes.due[:4] = [5, 2, 2, 9]
    for key, score in enumerate((9.0, 1.0, 3.0, 99.0)):
        enqueue(lanes, key, score, 0.0, 1.0)
    order = landed(lanes, core, (1.0, 2.0, 3.0, 4.0))
    assert order == [{2}, {1, 2}, {0, 1, 2}, {0, 1, 2, 3}]


@pytest.mark.parametrize("schedule", ["staging:slots=3", "edf", "share"])
def test_interpreted_is_compiled(schedule):
    ours, theirs = (
        ran(
            made(), schedule, prefetch="oracle:depth=3,recall=0.7,extra=2", costs=LINK,
            interpreted=each, compiled=not each,
        )
        for each in (True, False)
    )  # fmt: skip
    assert alike(ours, theirs)
    assert (ours.step_seconds == theirs.step_seconds).all()


@pytest.mark.parametrize("admission", [entry.name for entry in entries("admission")])
def test_staging_with_every_admission(admission):
    for evict in ("lru", "random", "arc"):
        outcome = ran(made(), "staging:slots=4", evict=evict, admission=admission, costs=LINK)
        total = outcome.counters.sum(axis=(0, 1))
        assert total[residency.ACCESSES] == total[1:7].sum()
        assert total[ISSUED] == total[[2, 3]].sum() + total[[13, 14]].sum()


RUNS = [
    (schedule, prefetch, trace)
    for schedule in [*ALL, "budget:most=3", "staging:slots=4", "share:share=0.1"]
    for prefetch in ("prev_token:depth=2", "random:depth=3,width=3")
    for trace in (("tiny-prose-b1", (0, 40), 51), ("tiny-mixed-b8", (0, 12), 80))
]


@cache
def shipped(name, steps):
    return slice_steps(load(HERE.parents[1] / "traces" / f"{name}.npz"), *steps)


def count(schedule, prefetch, trace):
    name, steps, slots = trace
    found = ran(shipped(name, steps), schedule, slots=slots, prefetch=prefetch, costs=LINK)
    return [found.decision_digest, *found.counters.sum(axis=(0, 1))[:17].tolist()]


@pytest.fixture(scope="module")
def frozen():
    if os.environ.get("SPECMD_FREEZE"):
        found = {" ".join((*run[:2], run[2][0])): count(*run) for run in RUNS}
        text = json.dumps(found, indent=1)
        FROZEN.write_text(re.sub(r"\[[^]]*\]", lambda m: " ".join(m[0].split()), text) + "\n")
    return json.loads(FROZEN.read_text())


@pytest.mark.parametrize("run", RUNS, ids=lambda run: " ".join((*run[:2], run[2][0])))
def test_counts_are_what_they_were(frozen, run):
    assert count(*run) == frozen[" ".join((*run[:2], run[2][0]))]
