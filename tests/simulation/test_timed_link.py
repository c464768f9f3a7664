"""The clock by hand, in milliseconds: a layer 1, an expert 0.1, a transfer as each test says."""

import numpy as np
import pytest
from reference import EVICT, FETCH, HIT, LATE, LOG, PREFETCH, random_steps, tell
from test_residency import made

from specmd.core import state as residency
from specmd.core.event import World
from specmd.core.kernel import Kernel
from specmd.policy.registry import choose
from specmd.runs.options import RunConfig
from specmd.simulation.costs import CostCoefficients
from specmd.simulation.events import EventStream
from specmd.simulation.lanes import IDLE
from specmd.simulation.replay import replay
from specmd.simulation.timed_link import TimedLink
from specmd.simulation.timeline import COMPUTE, DEMAND_STALL, LATE_STALL, NUM_PARTS, OVERHEAD
from specmd.trace import synthetic
from specmd.trace.contexts import step_loads

CANCEL = residency.LOG_CANCEL
MB = 1e6


def costs(transfer, chunk=1e9, latency=0.0, layer=1.0, expert=0.1, launch=0.0):
    """Coefficients with time in milliseconds; an expert has 1 MB, a chunk `chunk` milliseconds."""
    per_ms = MB / transfer if transfer else float("inf")
    bytes_ = chunk * per_ms if transfer else MB
    return CostCoefficients(
        0.0,
        expert / MB,
        launch,
        0.0,
        0.0,
        layer,
        0.0,
        launch,
        0.0,
        0.0,
        0.0,
        latency,
        per_ms,
        bytes_,
    )


class Noted(TimedLink):
    """A clock that notes, for every event, when it was routed and when its keys arrived."""

    def execute(self, core, event):
        demanded = [int(key) for key in self.demand[: self.count[0]]]
        TimedLink.execute(self, core, event)
        NOTES.append((self.routed_s[0], [(key, self.arrival[key]) for key in demanded]))


NOTES = []


def run(trace, events, coefficients, slots=8, policy="lru", schedule="fifo", blocks=False, **more):
    """Serve the events, with their proposals, on a clock; return the link, the log, the core."""
    choice, header = choose("evict", policy), trace.header
    world = World.of(header, [slots])
    options = choose("schedule", schedule).create()
    stream = EventStream(trace)
    flat = [(k, d, s) for now in events for k, d, *s in now.proposals]
    chunk = stream.chunk(0, stream.num_steps)._replace(
        prefetch_start=np.cumsum([0, *(len(now.proposals) for now in events)]),
        prefetch_keys=np.array([key for key, _, _ in flat], int),
        prefetch_due=np.array([due for _, due, _ in flat], int),
        prefetch_score=np.array([score[0] if score else 0.0 for _, _, score in flat]),
    )
    link = Noted.create(
        np.full(world.num_keys, float(MB)),
        coefficients,
        step_loads(trace),
        schedule=options,
        blocks=blocks,
        staging=more.get("staging", 2),
    )
    kernel = Kernel(
        world,
        choice,
        link,
        admission=more.get("admission", residency.FORCED),
        guarded=options.guard,
        interpreted=True,
        also={residency.log: tell},
    )
    LOG.clear()
    NOTES.clear()
    kernel.run(chunk)
    return kernel.link, list(LOG), kernel.core


def one_layer(*sets, proposals=None):
    trace, events = made([[demanded] for demanded in sets], experts=8)
    for index, proposed in (proposals or {}).items():
        events[index].proposals = proposed
    return trace, events


def parts(link):
    """Milliseconds by part, over all steps."""
    return np.array(link.parts).reshape(-1, NUM_PARTS).sum(axis=0)


def arrivals():
    return [dict(keys) for _, keys in NOTES]


def expect(link, total, compute=None, demand=0.0, late=0.0):
    found = parts(link)
    assert link.now_s[0] == pytest.approx(total)
    assert found.sum() == pytest.approx(total)
    assert found[DEMAND_STALL] == pytest.approx(demand)
    assert found[LATE_STALL] == pytest.approx(late)
    if compute is not None:
        assert found[COMPUTE] == pytest.approx(compute)


# --- demand


def test_experts_compute_as_they_arrive():
    # Layer until 1; transfers 1-2 and 2-3; computed 2-2.1 and 3-3.1.
    link, _, _ = run(*one_layer({0, 1}), costs(1.0))
    expect(link, 3.1, compute=1.2, demand=1.9)
    assert arrivals() == [{0: pytest.approx(2.0), 1: pytest.approx(3.0)}]


def test_resident_experts_compute_while_the_missing_stream_in():
    # Second event: layer until 3.1 (2.1 + 1), key 0 until 3.2, key 1 arrives at 4.1.
    link, _, _ = run(*one_layer({0}, {0, 1}), costs(1.0))
    expect(link, 4.2, compute=2.3, demand=1.0 + 0.9)


def test_blocking_waits_for_all_first():
    link, _, _ = run(*one_layer({0}, {0, 1}), costs(1.0), blocks=True)
    expect(link, 4.3, compute=2.3, demand=1.0 + 1.0)


def test_hits_alone_do_not_stall():
    link, _, _ = run(*one_layer({0, 1}, {0, 1}, {1}), costs(1.0))
    expect(link, 3.1 + 1.2 + 1.1, compute=3.5, demand=1.9)
    assert link.lanes.busy_s[0] == pytest.approx(2.0)


def test_latency_is_paid_by_each_transfer():
    link, _, _ = run(*one_layer({0, 1}), costs(1.0, latency=0.25))
    assert arrivals() == [{0: pytest.approx(2.25), 1: pytest.approx(3.5)}]
    assert link.lanes.busy_s[0] == pytest.approx(2.5)


def test_launches_are_overhead():
    link, _, _ = run(*one_layer({0, 1}), costs(1.0, launch=0.01))
    assert parts(link)[OVERHEAD] == pytest.approx(0.03)
    assert parts(link)[COMPUTE] == pytest.approx(1.2)


def test_keys_without_a_slot_wait_for_room():
    # One slot, one to stage in: 2 may start when 0 was computed, at 2.1 instead of 2, 3 behind 1.
    run(*one_layer({0, 1, 2, 3}), costs(0.5, expert=1.0), slots=1, staging=1)
    # 0: 1-1.5, computed 2.5; 1: 1.5-2, computed 3.5; 2: 2.5-3; 3: 3.5-4.
    assert list(arrivals()[0].values()) == [pytest.approx(at) for at in (1.5, 2.0, 3.0, 4.0)]
    run(*one_layer({0, 1, 2, 3}), costs(0.5, expert=1.0), slots=1, staging=2)
    assert list(arrivals()[0].values()) == [pytest.approx(at) for at in (1.5, 2.0, 2.5, 3.0)]


@pytest.mark.parametrize("admission", [residency.BYPASS, residency.NEVER_ADMIT])
def test_without_a_slot_of_its_own_only_staging_makes_room(admission):
    # Computed at 2.5, 3.5, 4.5: what is third waits for the first.
    slots = 8 if admission == residency.NEVER_ADMIT else 1
    sets = ({0, 1, 2},) if admission == residency.NEVER_ADMIT else ({7}, {0, 1, 2})
    link, _, _ = run(*one_layer(*sets), costs(0.5, expert=1.0), slots=slots, admission=admission)
    began = link.routed_s[0]
    found = [at - began for at in arrivals()[-1].values()]
    assert found == [pytest.approx(at) for at in (0.5, 1.0, 2.0)]


def test_blocking_computes_what_is_there_when_there_is_room_for_no_more():
    # Waits for 0 and 1 until 2; computed at 3 and 4; 2 has the room of 0 from 3 on.
    link, _, _ = run(
        *one_layer({0, 1, 2}),
        costs(0.5, expert=1.0),
        blocks=True,
        admission=residency.NEVER_ADMIT,
    )
    assert list(arrivals()[0].values()) == [pytest.approx(at) for at in (1.5, 2.0, 3.5)]
    expect(link, 5.0, compute=4.0, demand=1.0)


# --- prefetches


def test_a_prefetch_that_lands_in_time_is_a_hit():
    # 0 arrives at 2, then 5 until 3; the next event is routed at 2.1 + 1.
    link, log, _ = run(*one_layer({0}, {5}, proposals={0: [(5, 2)]}), costs(1.0))
    assert log == [(FETCH, 0), (PREFETCH, 5), (HIT, 5)]
    expect(link, 3.2, demand=1.0)
    assert link.lanes.busy_s[0] == pytest.approx(2.0)


def test_a_prefetch_under_way_is_a_late_hit_and_goes_on():
    # 0 arrives at 3; 5 moves 3-5; wanted at 4.1: late by 0.9.
    link, log, _ = run(*one_layer({0}, {5}, proposals={0: [(5, 2)]}), costs(2.0, chunk=0.5))
    assert (LATE, 5) in log
    expect(link, 5.1, demand=2.0, late=0.9)
    assert arrivals()[1] == {5: pytest.approx(5.0)}
    assert link.lanes.busy_s[0] == pytest.approx(4.0)


def test_a_late_hit_is_a_use():
    # 5 is late in event 2, which stamps it: 0 leaves. Its next use is a reuse.
    trace, events = one_layer({0}, {5}, {1}, {5}, proposals={0: [(5, 2)]})
    _, log, core = run(trace, events, costs(2.0, chunk=0.5), slots=2)
    assert log == [(FETCH, 0), (PREFETCH, 5), (LATE, 5), (FETCH, 1), (EVICT, 0), (HIT, 5)]
    counts = np.array(core.counters).reshape(-1, residency.NUM_COUNTERS).sum(axis=0)
    assert counts[residency.LATE_HITS] == counts[residency.REUSE_HITS] == 1
    assert counts[residency.PREFETCH_HITS] == 0


def test_demand_waits_for_one_chunk_at_most_and_the_rest_resumes():
    # 5 moves from 3; 1 is wanted at 4.1. Chunks end at 3.5, 4, 4.5: 1 moves 4.5-6.5, 5 6.5-7.
    trace, events = one_layer({0}, {1}, {5}, proposals={0: [(5, 3)]})
    link, log, _ = run(trace, events, costs(2.0, chunk=0.5))
    assert arrivals()[1] == {1: pytest.approx(6.5)}
    # The third event is routed at 6.6 + 1; the rest of 5 took 6.5-7.
    assert log[-1] == (HIT, 5)
    assert link.lanes.busy_s[0] == pytest.approx(6.0)
    expect(link, 7.7, demand=2.0 + 2.4)


@pytest.mark.parametrize("schedule", ["fifo", "priority"])
def test_what_was_interrupted_resumes_before_what_has_not_started(schedule):
    # As above, with 6 queued behind 5: 5 ends at 7 and is there at 7.6, 6 is not.
    proposals = {0: [(5, 3, 1.0)], 1: [(6, 4, 9.0)]}
    trace, events = one_layer({0}, {1}, {5, 6}, proposals=proposals)
    _, log, _ = run(trace, events, costs(2.0, chunk=0.5), schedule=schedule)
    assert log[-2:] == [(HIT, 5), (LATE, 6)]
    assert arrivals()[2] == {6: pytest.approx(9.0)}


def test_a_prefetch_does_not_start_before_it_is_issued():
    # The link is idle from 3 on; 5 is proposed at 4.1, when the second event is routed.
    trace, events = one_layer({0}, {0}, {5}, proposals={1: [(5, 3)]})
    _, log, _ = run(trace, events, costs(2.0, chunk=0.5))
    assert log[-1] == (LATE, 5)
    assert arrivals()[2] == {5: pytest.approx(6.1)}


def test_a_transfer_in_its_last_chunk_ends_first():
    # 5 moves 3-5 in chunks of 1.5, counted from its end: 3-3.5, 3.5-5. Wanted at 4.1: until 5.
    run(*one_layer({0}, {1}, proposals={0: [(5, 3)]}), costs(2.0, chunk=1.5))
    assert arrivals()[1] == {1: pytest.approx(7.0)}


def test_an_interrupted_prefetch_can_be_late_and_needs_only_its_rest():
    # As above, but 5 is wanted together with 1: 5 is under way and ends at 5, then 1 until 7.
    run(*one_layer({0}, {1, 5}, proposals={0: [(5, 2)]}), costs(2.0, chunk=0.5))
    assert arrivals()[1] == {5: pytest.approx(5.0), 1: pytest.approx(7.0)}
    # 5 is interrupted at 4.5 for 1 (until 6.5), resumes, is wanted at 6.7: 0.3 are left.
    trace, events = one_layer({0}, {1}, {5}, proposals={0: [(5, 3)]})
    _, log, _ = run(trace, events, costs(2.0, chunk=0.5)._replace(layer_read_s=0.1))
    # 0: 0.1-2.1, computed 2.2; 5 from 2.1; 1 wanted at 2.3: boundary 2.6, until 4.6, computed 4.7;
    # 5 from 4.6, with 1.5 left, until 6.1; wanted at 4.8.
    assert arrivals()[1] == {1: pytest.approx(4.6)}
    assert arrivals()[2] == {5: pytest.approx(6.1)}
    assert (LATE, 5) in log


def test_late_keys_go_before_misses_and_the_one_under_way_first():
    # 6 and 5 are queued in that order; 6 is under way when 1, 5 and 6 are wanted.
    trace, events = one_layer({0}, {1, 5, 6}, proposals={0: [(6, 2), (5, 2)]})
    run(trace, events, costs(2.0, chunk=0.5))
    assert [list(keys) for keys in arrivals()] == [[0], [6, 5, 1]]
    assert list(arrivals()[1].values()) == [pytest.approx(at) for at in (5.0, 7.0, 9.0)]


def test_the_queue_is_in_order_of_issue_or_by_score():
    proposals = {0: [(5, 4, 1.0), (6, 4, 3.0), (7, 4, 2.0)]}
    for schedule, first in (("fifo", 5), ("priority", 6)):
        link, _, _ = run(*one_layer({0}, {0}, proposals=proposals), costs(2.0), schedule=schedule)
        assert link.lanes.under_way[0] == first
        assert link.lanes.begun_s[0] == pytest.approx(3.0)


def test_truth_cancels_what_is_queued_for_this_event_and_not_wanted():
    proposals = {0: [(5, 2), (6, 2), (7, 3)]}
    for schedule, gone in (("fifo", []), ("cancel", [6])):
        _, log, core = run(
            *one_layer({0}, {1}, proposals=proposals), costs(2.0, chunk=0.5), schedule=schedule
        )
        # 5 is under way and stays; 7 is meant for later.
        assert [key for what, key in log if what == CANCEL] == gone
        assert all(core.state[key] == residency.EMPTY and core.hold[key] == 0 for key in gone)
        assert core.state[5] == core.state[7] == residency.LOADING
        counts = np.array(core.counters).reshape(-1, residency.NUM_COUNTERS).sum(axis=0)
        assert counts[residency.PREFETCH_CANCELLED] == len(gone)


def test_what_was_cancelled_was_never_fetched():
    # 6 is cancelled at the second event, and demanded in the fourth: its first fetch is that one.
    trace, events = one_layer({0}, {1}, {1}, {6}, proposals={0: [(5, 2), (6, 2)]})
    _, log, core = run(trace, events, costs(2.0, chunk=0.5), schedule="cancel")
    assert (CANCEL, 6) in log
    counts = np.array(core.counters).reshape(-1, residency.NUM_COUNTERS).sum(axis=0)
    assert counts[residency.COMPULSORY_MISSES] == 3
    # One that had been fetched before stays so: only its slot is empty again.
    trace, events = one_layer({6}, {0}, {1}, {2}, {6}, proposals={2: [(5, 4), (6, 4)]})
    _, log, core = run(trace, events, costs(2.0, chunk=0.5), schedule="cancel", slots=3)
    counts = np.array(core.counters).reshape(-1, residency.NUM_COUNTERS).sum(axis=0)
    assert (counts[residency.COMPULSORY_MISSES], counts[residency.PREFETCH_CANCELLED]) == (4, 1)
    assert counts[residency.CAPACITY_MISSES] == 1


@pytest.mark.parametrize("seed", range(4))
def test_where_nothing_is_evicted_there_are_no_capacity_misses(seed):
    trace = synthetic(
        num_layers=3, num_experts=12, top_k=2, decode_length=20, expert_bytes=10**6, seed=seed
    )
    chosen = RunConfig(
        evict="lru", prefetch="random:width=6", schedule="cancel", capacity="36", capacity_slots=36
    )
    outcome = replay(trace, chosen, costs=costs(2.0, chunk=0.5), interpreted=True)
    total = outcome.counters.sum(axis=(0, 1))
    assert total[residency.PREFETCH_CANCELLED] > 0
    assert total[residency.EVICTIONS] == total[residency.CAPACITY_MISSES] == 0


def test_what_was_interrupted_is_not_cancelled():
    trace, events = one_layer({0}, {1}, {2}, proposals={0: [(5, 3)]})
    _, log, core = run(
        trace, events, costs(2.0, chunk=0.5)._replace(layer_read_s=0.1), schedule="cancel"
    )
    assert not [key for what, key in log if what == CANCEL]
    assert core.state[5] != residency.EMPTY


def test_demand_takes_the_slot_of_a_queued_prefetch_before_it_waits():
    # Slots of 0, 5, 6 and 7: 0 may leave for 1, for 2 nobody may. 5 is under way; 7 is the last.
    trace, events = one_layer({0}, {1, 2}, proposals={0: [(5, 9), (6, 9), (7, 9)]})
    _, log, core = run(trace, events, costs(2.0, chunk=0.5), slots=4)
    assert log[4:] == [(FETCH, 1), (EVICT, 0), (FETCH, 2), (CANCEL, 7)]
    assert core.state[6] == residency.LOADING
    assert core.state[5] == residency.LOADING


def test_demand_waits_for_a_prefetch_to_land_where_nothing_else_may_leave():
    trace, events = one_layer({0}, {1, 2}, proposals={0: [(5, 9)]})
    link, log, _ = run(trace, events, costs(2.0, chunk=0.5), slots=2)
    assert log[2:] == [(FETCH, 1), (EVICT, 0), (FETCH, 2), (EVICT, 5)]
    # 5 was let go on until 5, then 1 and 2.
    assert arrivals()[1] == {1: pytest.approx(7.0), 2: pytest.approx(9.0)}
    assert link.lanes.free_s[0] == pytest.approx(9.0)


# --- laws


@pytest.mark.parametrize("seed", range(30))
def test_every_byte_is_charged_and_demand_waits_for_one_chunk_at_most(seed):
    trace, events = random_steps(seed + 300, prefetches=True)
    rng = np.random.default_rng(seed)
    keys = trace.header.num_layers * trace.header.num_experts
    transfer, chunk = float(rng.uniform(0.1, 4)), float(rng.choice([0.05, 0.3, 1.7]))
    most = max(len(now.tokens) for now in events)
    slots = most + int(rng.integers(0, keys))
    schedule = ["fifo", "priority", "cancel", "guard"][seed % 4]
    link, _, core = run(
        trace, events, costs(transfer, chunk=chunk), slots=min(slots, keys), schedule=schedule
    )
    counts = np.array(core.counters).reshape(-1, residency.NUM_COUNTERS).sum(axis=0)
    misses = counts[residency.COMPULSORY_MISSES : residency.CAPACITY_MISSES + 1].sum()
    moved = misses + counts[residency.PREFETCH_ISSUED] - counts[residency.PREFETCH_CANCELLED]
    lanes = link.lanes
    open_ = [lanes.remaining_s[key] for key in lanes.queue[: lanes.queued[0]]]
    if lanes.under_way[0] != IDLE:
        open_.append(lanes.remaining_s[lanes.under_way[0]])
    assert link.lanes.busy_s[0] + sum(open_) == pytest.approx(moved * transfer), f"seed {seed}"
    assert parts(link).sum() == pytest.approx(link.now_s[0])
    assert link.lanes.busy_s[0] <= max(link.lanes.free_s[0], link.now_s[0]) + 1e-9
    if slots > most + 3:
        # Enough slots that demand never has to wait for one.
        for routed, arrived in NOTES:
            for place, (_, at) in enumerate(arrived, 1):
                assert at <= routed + chunk + place * transfer + 1e-9, f"seed {seed}"


def config(slots, **more):
    return RunConfig(evict="lru", capacity=str(slots), capacity_slots=slots, **more)


def timed(slots=16, transfer=0.5, **more):
    trace = synthetic(
        num_layers=4, num_experts=8, top_k=2, num_requests=3, prompt_length=4, expert_bytes=10**6
    )
    residency_ = more.pop("residency", "cache")
    return replay(
        trace, config(slots, **more), costs=costs(transfer), residency=residency_, interpreted=True
    )


def test_stalls_fall_with_bandwidth_and_compute_stays():
    runs = [timed(transfer=transfer) for transfer in (2.0, 1.0, 0.5, 0.1, 0.0)]
    stalls = [run.step_seconds[:, DEMAND_STALL].sum() for run in runs]
    assert stalls == sorted(stalls, reverse=True)
    assert stalls[0] > stalls[-1] == 0
    assert len({round(run.step_seconds[:, COMPUTE].sum(), 9) for run in runs}) == 1
    assert len({run.decision_digest for run in runs}) == 1


def test_blocking_is_never_faster():
    for slots in (4, 12, 20):
        overlap, block = (timed(slots, miss=miss) for miss in ("overlap", "block"))
        assert (block.step_seconds.sum(axis=1) >= overlap.step_seconds.sum(axis=1) - 1e-9).all()
        assert block.step_seconds.sum() > overlap.step_seconds.sum()


def test_all_resident_has_no_stall_and_no_cache_has_the_most():
    everything, nothing, cached = (timed(residency=which) for which in ("all", "none", "cache"))
    assert everything.step_seconds[:, [DEMAND_STALL, LATE_STALL]].sum() == 0
    assert everything.link_busy_s == 0
    assert nothing.step_seconds.sum() > cached.step_seconds.sum() > everything.step_seconds.sum()
    for outcome, name in ((nothing, "nothing"), (cached, "cached")):
        total = outcome.counters.sum(axis=(0, 1))
        misses = total[residency.COMPULSORY_MISSES : residency.CAPACITY_MISSES + 1].sum()
        assert outcome.link_busy_s == pytest.approx(misses * 0.5), name


def test_late_hits_appear_with_a_slow_link():
    late = []
    for transfer in (0.0, 0.05, 0.5, 1.0):
        total = timed(transfer=transfer, prefetch="oracle").counters.sum(axis=(0, 1))
        late.append(int(total[residency.LATE_HITS]))
    assert late[0] == late[1] == 0
    assert 0 < late[2] <= late[3]


def test_a_perfect_prefetcher_on_a_link_with_time_to_spare_leaves_the_first_stall_only():
    outcome = timed(slots=32, transfer=0.05, prefetch="oracle:depth=1")
    stalls = outcome.step_seconds[:, [DEMAND_STALL, LATE_STALL]].sum(axis=1)
    assert stalls[0] > 0
    assert stalls[1:].max() == 0
