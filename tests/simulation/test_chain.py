"""Disk, host, link by hand, in milliseconds: a layer 1, an expert 0.1, hops as each test says."""

from collections import OrderedDict

import numpy as np
import pytest
from reference import LOG, PREFETCH, random_steps, tell
from test_timed_link import MB, NOTES, arrivals, costs, one_layer

from specmd.core import state as residency
from specmd.core.binding import Executing
from specmd.core.event import World
from specmd.core.kernel import Kernel
from specmd.policy.registry import choose
from specmd.simulation.chain import DISK, ChainedLink
from specmd.simulation.events import EventStream
from specmd.simulation.lanes import IDLE
from specmd.simulation.timed_link import LINK
from specmd.simulation.timeline import CPU_EXPERT, DEMAND_STALL, DISK_STALL, LATE_STALL, NUM_PARTS
from specmd.trace.contexts import step_loads

CANCEL, FETCH = residency.LOG_CANCEL, residency.LOG_FETCH


execute = ChainedLink.execute  # by a name of its own, so that what it calls is replaced


class Noted(ChainedLink):
    """Notes, for every event, when it was routed and when its keys arrived."""

    def execute(self, core, event):
        demanded = [int(key) for key in self.demand[: self.count[0]]]
        execute(self, core, event)
        NOTES.append((self.routed_s[0], [(key, self.arrival[key]) for key in demanded]))


def chain(disk, link, chunk=1e9, latency=0.0, **more):
    """Coefficients of two hops, each its milliseconds an expert; `chunk` is one of the disk's."""
    found = costs(link, chunk=chunk * link / disk, **more)
    return found._replace(disk_s_per_byte=disk / MB, disk_latency_s=latency)


def run(
    trace,
    events,
    figures,
    slots=8,
    host=8,
    schedule="fifo",
    evict="lru",
    concludes=False,
    computes=0,
):
    """Serve the events, with their proposals; return the link, the log, the core, the kernel."""
    world = World.of(trace.header, [slots])
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
        figures,
        step_loads(trace),
        schedule=options,
        blocks=False,
        disk=True,
    )
    kernel = Kernel(
        world,
        choose("evict", "lru"),
        link,
        guarded=options.guard,
        execution=computing(world, computes),
        interpreted=True,
        behind=(World.of(trace.header, [host]), choose("evict", evict), residency.FORCED),
        also={residency.log: tell},
    )
    LOG.clear()
    NOTES.clear()
    kernel.run(chunk)
    if concludes:
        kernel.conclude()
    return kernel.link, list(LOG), kernel.core, kernel


def computing(world, tokens):
    """Have the host compute missed experts of so many tokens, if of any."""
    if not tokens:
        return None
    misser = choose("miss", f"host:tokens={tokens}")
    return Executing(
        router=None,
        misser=misser,
        tokens=1,
        has_rows=False,
        low_share=1.0,
        rule_renormalises=True,
        world_of=lambda _: world,
    )


def expect(link, total, disk=0.0, demand=0.0, late=0.0):
    found = np.array(link.parts).reshape(-1, NUM_PARTS).sum(axis=0)
    assert link.now_s[0] == pytest.approx(total)
    assert found.sum() == pytest.approx(total)
    stalls = found[DISK_STALL], found[DEMAND_STALL], found[LATE_STALL]
    assert stalls == pytest.approx((disk, demand, late))


def in_host(kernel):
    return {key for key, state in enumerate(kernel.link.tier.core.state) if state}


# --- demand


def test_legs_of_different_experts_overlap_and_each_stall_names_its_hop():
    # Routed at 1. Read 1-3 and 3-5, cross 3-4 and 5-6; computed 4-4.1 and 6-6.1.
    link, *_ = run(*one_layer({0, 1}), chain(2.0, 1.0))
    assert arrivals() == [{0: pytest.approx(4.0), 1: pytest.approx(6.0)}]
    expect(link, 6.1, disk=2.0 + 0.9, demand=1.0 + 1.0)
    assert link.lanes.busy_s == pytest.approx([2.0, 4.0])


def test_a_slow_link_is_what_is_waited_for():
    # Read 1-1.5, 1.5-2; cross 1.5-3.5, 3.5-5.5.
    link, *_ = run(*one_layer({0, 1}), chain(0.5, 2.0))
    assert arrivals() == [{0: pytest.approx(3.5), 1: pytest.approx(5.5)}]
    expect(link, 5.6, disk=0.5, demand=2.0 + 1.9)


def test_what_the_host_has_only_crosses_the_link():
    # 0 leaves the only slot of the device for 1, and stays in the host.
    link, _, _, kernel = run(*one_layer({0}, {1}, {0}), chain(2.0, 1.0), slots=1)
    expect(link, 4.1 + 4.1 + 2.1, disk=2.0 + 2.0, demand=1.0 + 1.0 + 1.0)
    assert link.lanes.busy_s == pytest.approx([3.0, 4.0])
    assert in_host(kernel) == {0, 1}


def test_what_left_the_host_is_read_again():
    link, _, _, kernel = run(*one_layer({0}, {1}, {0}), chain(2.0, 1.0), slots=1, host=1)
    expect(link, 3 * 4.1, disk=3 * 2.0, demand=3 * 1.0)
    assert in_host(kernel) == {0}


def test_each_read_has_its_latency():
    link, *_ = run(*one_layer({0, 1}), chain(2.0, 1.0, latency=0.5))
    assert arrivals() == [{0: pytest.approx(4.5), 1: pytest.approx(7.0)}]
    assert link.lanes.busy_s[DISK] == pytest.approx(5.0)


def test_what_the_host_has_crosses_while_another_is_read():
    # 1, 2 and 3 are in the host and not on the device; 0 is nowhere. Routed at 11.2: 1 crosses
    # 11.2-12.2 and is computed, 0 is read 11.2-13.2 and crosses until 14.2.
    link, *_ = run(*one_layer({1}, {2, 3}, {0, 1}), chain(2.0, 1.0), slots=2)
    assert link.routed_s[0] == pytest.approx(11.2)
    assert arrivals()[2] == {1: pytest.approx(12.2), 0: pytest.approx(14.2)}
    expect(link, 14.3, disk=2.0 + 2.9 + 0.9, demand=1.0 + 2.0 + 2.0)


def test_what_the_host_computes_it_reads_first():
    # Read 1-3, computed in the host 3-6; the second time it is there: computed 7-10.
    figures = chain(2.0, 1.0)._replace(host_read_s_per_byte=3.0 / MB)
    link, _, _, kernel = run(*one_layer({0}, {0}), figures, computes=1)
    found = np.array(link.parts).reshape(-1, NUM_PARTS).sum(axis=0)
    assert (found[DISK_STALL], found[CPU_EXPERT]) == pytest.approx((2.0, 6.0))
    expect(link, 10.0, disk=2.0)
    assert link.lanes.busy_s == pytest.approx([0.0, 2.0])
    assert in_host(kernel) == {0}


def test_reads_for_the_host_go_one_after_the_other_and_before_prefetches():
    # Read 1-3 and 3-5, computed 3-6 and 6-9: the second waits for the first, not for the disk.
    figures = chain(2.0, 1.0)._replace(host_read_s_per_byte=3.0 / MB)
    trace, events = one_layer({0, 1}, {5}, proposals={0: [(5, 2)]})
    link, *_ = run(trace, events, figures, computes=1)
    # 5: read 5-7, crosses 7-8, wanted at 10.
    expect(link, 10.1, disk=2.0 + 2.0)
    assert link.lanes.busy_s == pytest.approx([1.0, 6.0])


# --- prefetches


def test_a_prefetch_takes_both_hops_behind_the_demand():
    # 0: read 1-3, crosses until 4. 5: read 3-5, crosses 5-6, wanted at 5.1.
    link, *_ = run(*one_layer({0}, {5}, proposals={0: [(5, 2)]}), chain(2.0, 1.0))
    assert arrivals()[1] == {5: pytest.approx(6.0)}
    expect(link, 6.1, disk=2.0, demand=1.0, late=0.9)


def test_a_prefetch_that_is_still_read_stalls_by_the_disk_first():
    # 5: read 5-9; wanted at 6.6; crosses until 9.5.
    link, *_ = run(*one_layer({0}, {5}, proposals={0: [(5, 2)]}), chain(4.0, 0.5))
    assert arrivals()[1] == {5: pytest.approx(9.5)}
    expect(link, 9.6, disk=4.0 + 2.4, demand=0.5, late=0.5)


def test_one_is_read_while_the_one_before_it_crosses_and_no_more_is_begun():
    # 0: read 1-1.5, crosses until 3.5. 5 is read until 2 and crosses 3.5-5.5; 6 is read from 3.5
    # on and waits; at 4.6, when 0 is wanted again, 7 has not begun.
    proposals = {0: [(5, 9), (6, 9), (7, 9)]}
    link, _, _, kernel = run(*one_layer({0}, {0}, proposals=proposals), chain(0.5, 2.0))
    lanes = link.lanes
    assert lanes.under_way == [5, IDLE]
    assert lanes.queued == [1, 1]
    assert lanes.queue[LINK * lanes.keys] == 6
    assert lanes.queue[DISK * lanes.keys] == 7
    assert lanes.begun_s == pytest.approx([3.5, 3.5])
    assert lanes.free_s[DISK] == pytest.approx(4.0)
    assert in_host(kernel) == {0, 5, 6}
    kernel.conclude()
    assert in_host(kernel) == {0, 5, 6, 7}


def test_a_prefetch_of_what_the_host_has_only_crosses():
    # 0 and 1 pass through one slot; then 0 again, ahead of its use: crosses from 8.2+1 on.
    trace, events = one_layer({0}, {1}, {1}, {0}, proposals={2: [(0, 4)]})
    link, *_ = run(trace, events, chain(2.0, 1.0), slots=2, host=8)
    assert link.lanes.busy_s == pytest.approx([2.0, 4.0])  # 0 never left the device
    trace, events = one_layer({0}, {1, 2}, {1}, {0}, proposals={2: [(0, 4)]})
    link, *_ = run(trace, events, chain(2.0, 1.0), slots=2)
    assert link.lanes.busy_s == pytest.approx([4.0, 6.0])


def test_a_demand_takes_the_disk_at_the_next_chunk():
    # 5 is read from 5 on, in chunks of 1; 1 is wanted at 6.6: the disk is its own from 7 to 11.
    # 5 goes on until 13, wanted at 12.6, and crosses until 13.5.
    trace, events = one_layer({0}, {1}, {5}, proposals={0: [(5, 3)]})
    link, *_ = run(trace, events, chain(4.0, 0.5, chunk=1.0))
    assert arrivals()[1] == {1: pytest.approx(11.5)}
    assert arrivals()[2] == {5: pytest.approx(13.5)}
    expect(link, 13.6, disk=4.0 + 4.4 + 0.4, demand=0.5 + 0.5, late=0.5)


def test_the_link_carries_prefetches_while_a_demand_is_read():
    # 5: read 3-5, crosses 5-6. 1 is wanted at 5.1, read until 7.1: 5 is there by then.
    trace, events = one_layer({0}, {1}, {5}, proposals={0: [(5, 3)]})
    link, *_ = run(trace, events, chain(2.0, 1.0, chunk=0.2))
    assert arrivals()[1] == {1: pytest.approx(8.1)}
    assert arrivals()[2] == {}
    assert link.lanes.busy_s == pytest.approx([3.0, 6.0])


def test_what_was_cancelled_has_not_touched_the_host():
    # 5 is read from 3 on; 6 has not begun when the truth is known at 5.1, and was meant for then.
    proposals = {0: [(5, 9), (6, 2), (7, 9)]}
    trace, events = one_layer({0}, {1}, proposals=proposals)
    _, log, _, kernel = run(trace, events, chain(4.0, 0.1), schedule="cancel", concludes=True)
    assert (CANCEL, 6) in log
    assert in_host(kernel) == {0, 1, 5, 7}


def test_a_prefetch_demanded_before_it_began_asks_the_host_then():
    # 5 is being read when 6, behind it, is wanted: 6 goes ahead of it at the next chunk.
    proposals = {0: [(5, 9), (6, 2)]}
    trace, events = one_layer({0}, {6}, proposals=proposals)
    link, _, _, kernel = run(trace, events, chain(4.0, 0.5, chunk=1.0))
    assert arrivals()[1] == {6: pytest.approx(11.5)}
    assert in_host(kernel) == {0, 5, 6}
    expect(link, 11.6, disk=4.0 + 4.4, demand=0.5, late=0.5)


# --- laws


@pytest.mark.parametrize("seed", range(24))
def test_every_byte_is_charged_on_its_hop(seed):
    trace, events = random_steps(seed + 700, prefetches=True)
    rng = np.random.default_rng(seed)
    keys = trace.header.num_layers * trace.header.num_experts
    disk, link_ms = float(rng.uniform(0.1, 4)), float(rng.uniform(0.1, 4))
    slots = max(len(now.tokens) for now in events) + int(rng.integers(0, keys))
    host = int(rng.integers(1, keys + 1))
    schedule = ["fifo", "priority", "cancel", "guard"][seed % 4]
    figures = chain(disk, link_ms, chunk=float(rng.choice([0.05, 0.3, 1.7])))
    link, log, _, kernel = run(
        trace, events, figures, slots=min(slots, keys), host=host, schedule=schedule
    )
    found = np.array(link.parts).reshape(-1, NUM_PARTS)
    assert found.sum() == pytest.approx(link.now_s[0]), f"seed {seed}"
    assert (found >= -1e-9).all()
    # What has begun: all that was issued, but what waits at the beginning of the chain.
    lanes = link.lanes
    fresh = [
        key for key in lanes.queue[DISK * keys :][: lanes.queued[DISK]] if not lanes.started[key]
    ]
    asked = int(kernel.tier_counters[..., residency.ACCESSES].sum())
    issued = [what for what, _ in log if what in (FETCH, PREFETCH)]
    cancelled = [what for what, _ in log if what == CANCEL]
    assert asked == len(issued) - len(cancelled) - len(fresh)
    counts = kernel.tier_counters.sum(axis=(0, 1))
    read = int(counts[residency.COMPULSORY_MISSES : residency.CAPACITY_MISSES + 1].sum())
    left = {LINK: 0.0, DISK: 0.0}  # of what is open
    for lane in (LINK, DISK):
        open_ = [*lanes.queue[lane * keys :][: lanes.queued[lane]]]
        open_ += [lanes.under_way[lane]] if lanes.under_way[lane] != IDLE else []
        for key in open_:
            if lanes.started[key]:
                left[lane] += lanes.remaining_s[key]
                left[LINK] += link_ms if lane == DISK else 0.0
    assert lanes.busy_s[DISK] + left[DISK] == pytest.approx(read * disk), f"seed {seed}"
    assert lanes.busy_s[LINK] + left[LINK] == pytest.approx(asked * link_ms), f"seed {seed}"
    for lane in (LINK, DISK):
        assert lanes.busy_s[lane] <= max(lanes.free_s[lane], link.now_s[0]) + 1e-9


@pytest.mark.parametrize("seed", range(12))
def test_the_host_is_an_lru_cache_of_what_is_fetched(seed):
    trace, events = random_steps(seed + 900, prefetches=False)
    host = int(np.random.default_rng(seed).integers(1, 9))
    _, log, _, kernel = run(trace, events, chain(1.0, 1.0), slots=3, host=host)
    there, hits = OrderedDict(), 0
    for key in (key for what, key in log if what == FETCH):
        hits += key in there
        there[key] = None
        there.move_to_end(key)
        if len(there) > host:
            there.popitem(last=False)
    counts = kernel.tier_counters.sum(axis=(0, 1))
    assert counts[residency.REUSE_HITS] == hits, f"seed {seed}"
    assert in_host(kernel) == set(there)
