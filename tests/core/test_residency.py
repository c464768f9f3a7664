"""The residency core, by hand: small enough to be followed with a pencil."""

import numpy as np
import pytest
from reference import BYPASS, COUNTS, EVICT, FETCH, HIT, PREFETCH, Step, core_log

from specmd.core import state as residency
from specmd.runs.options import RunConfig
from specmd.simulation.replay import replay
from specmd.trace import build_trace, slice_steps, synthetic

NAMES = {HIT: "hit", FETCH: "fetch", PREFETCH: "prefetch", EVICT: "evict", BYPASS: "bypass"}


def made(steps, experts):
    """A trace whose steps demand given sets of experts, one set a layer; and its events."""
    ids, numbers = [], []
    for number, layers in enumerate(steps):
        sets = [sorted(demanded) for demanded in layers]
        tokens = max(len(demanded) for demanded in sets)
        for token in range(tokens):
            ids.append([[demanded[min(token, len(demanded) - 1)]] for demanded in sets])
            numbers.append(number)
    trace = build_trace(np.array(ids), num_experts=experts, step=numbers)
    events = [
        Step(number * len(layers) + layer + 1, number, layer, dict.fromkeys(demanded, 1))
        for number, layers in enumerate(steps)
        for layer, demanded in enumerate(layers)
    ]
    return trace, events


def told(policy, capacity, *sets, experts=8, proposals=None, **more):
    """What one layer decides, an event a string; `proposals` by event as [(key, due)]."""
    trace, events = made([[demanded] for demanded in sets], experts)
    return _told(policy, [capacity], trace, events, proposals, **more)


def _told(policy, capacity, trace, events, proposals, **more):
    for index, proposed in (proposals or {}).items():
        events[index].proposals = proposed
    log, counts, core = core_log(trace, events, policy, capacity, **more)
    lines = []
    for what, which in log:
        if what == "event":
            lines.append("")
        else:
            lines[-1] += f"{', ' if lines[-1] else ''}{NAMES[what]} {which}"
    return lines, counts, {key for key, state in enumerate(core.state) if state == residency.READY}


def config(evict="lru", slots=8, **more):
    return RunConfig(evict=evict, capacity=str(slots), capacity_slots=slots, **more)


def counted(trace, chosen, **more):
    outcome = replay(trace, chosen, interpreted=True, **more)
    total = outcome.counters.sum(axis=(0, 1)).tolist()
    return dict(zip(COUNTS, total[: len(COUNTS)], strict=True)), outcome


def test_the_hand_checkable_trace():
    steps = [[0, 1], [0, 2], [0, 1], [0, 3], [0, 1]]
    trace = build_trace(np.array([[row] * 3 for row in steps]), num_experts=4)
    counts, outcome = counted(trace, config(slots=6, scope="layer"))
    wanted = {"accesses": 30, "reuse_hits": 12, "compulsory": 12, "capacity": 6, "evictions": 12}
    assert counts == dict.fromkeys(COUNTS, 0) | wanted | {"tokens": 30, "token_hits": 12}
    for layer in outcome.counters[1]:
        assert layer[residency.ACCESSES] == 10
        assert layer[residency.REUSE_HITS] == 4
    assert not outcome.counters[0].any()  # no prefill
    lines, _, _ = told("lru", 2, *steps)
    assert lines == [
        "fetch 0, fetch 1",
        "hit 0, fetch 2, evict 1",
        "hit 0, fetch 1, evict 2",
        "hit 0, fetch 3, evict 1",
        "hit 0, fetch 1, evict 3",
    ]


# --- one rank for all: of equals the larger key leaves first


@pytest.mark.parametrize("policy", ["lru", "mru", "lfu", "lfru", "least_stale", "layer_distance"])
def test_on_equal_rank_the_larger_key_leaves_first(policy):
    lines, _, _ = told(policy, 3, {1, 2, 4}, {0}, {3})
    assert lines[1] == "fetch 0, evict 4"


def test_belady_and_static_break_ties_alike():
    assert told("belady", 3, {1, 2, 4}, {0}, {3})[0][1:] == ["fetch 0, evict 4", "fetch 3, evict 2"]
    popularity = np.array([9.0, 1.0, 1.0, 9.0, 1.0, 0.0, 0.0, 0.0])
    lines, counts, kept = told("static", 3, {1, 2, 4}, {0}, {3}, popularity=popularity)
    assert kept == {0, 1, 3}
    assert lines == ["hit 1, fetch 2, fetch 4", "hit 0", "hit 3"]
    assert (counts["bypassed"], counts["evictions"]) == (2, 0)


# --- what single policies make of it


@pytest.mark.parametrize("policy", ["arc", "slru", "sieve", "s3fifo:move=1"])
def test_the_first_use_of_a_prefetched_key_is_no_second_use(policy):
    # 1 is used twice; 0 is prefetched, and used once and later: it leaves first all the same.
    lines, _, _ = told(policy, 2, {1}, {1}, {0}, {2}, proposals={1: [(0, 3)]})
    assert lines == ["fetch 1", "hit 1, prefetch 0", "hit 0", "fetch 2, evict 0"]


def test_arc_keeps_its_list_of_keys_used_once_under_an_exact_prefetcher():
    # 0 is used twice; then a scan, every key prefetched in time, passes by in the other slots.
    proposals = {index: [(index, index + 2)] for index in range(1, 6)}
    lines, _, kept = told("arc", 3, {0}, {0}, {1}, {2}, {3}, {4}, {5}, proposals=proposals)
    assert lines[4:] == [
        "hit 3, evict 2, prefetch 4",
        "hit 4, evict 3, prefetch 5",
        "hit 5",
    ]
    assert 0 in kept


def test_arc_forgets_a_prefetch_that_was_never_used():
    # 5 comes by prefetch, leaves unused, and is then missed for the first time: used once.
    sets = ({0}, {0}, {1}, {5}, {2}, {3})
    lines, _, _ = told("arc", 2, *sets, proposals={1: [(5, 9)]})
    assert lines[1:] == [
        "hit 0, prefetch 5",
        "fetch 1, evict 5",
        "fetch 5, evict 1",
        "fetch 2, evict 5",
        "fetch 3, evict 2",
    ]


def test_s3fifo_passes_over_a_held_key_without_promoting_it():
    # 0 is held, and used once: it stays in the small queue, at whose end it leaves when free.
    lines, _, _ = told("s3fifo", 2, {0}, {1}, {0, 2}, {3})
    assert lines[2:] == ["hit 0, fetch 2, evict 1", "fetch 3, evict 0"]


def test_s3fifo_fills_the_main_queue_first_where_it_is_told_so():
    # Small queue of one: cold, the second and third key go to the main one, and stay in it.
    sets = ({0}, {1}, {2}, {3}, {4}, {5})
    cold, _, kept = told("s3fifo", 3, *sets)
    assert cold[3:] == ["fetch 3, evict 0", "fetch 4, evict 1", "fetch 5, evict 2"]
    warm, _, kept = told("s3fifo:warm=true", 3, *sets)
    assert warm[3:] == ["fetch 3, evict 0", "fetch 4, evict 3", "fetch 5, evict 4"]
    assert kept == {1, 2, 5}


def test_lrfu_starts_anew_or_goes_on_where_it_was():
    # 0 has three uses when it leaves; back again it has one, fewer than 2 has, or the most.
    sets = ({0}, {0}, {0}, {2, 3}, {0}, {2}, {4})
    anew, _, _ = told("lrfu:decay=0.01", 2, *sets)
    kept, _, _ = told("lrfu:decay=0.01,resident=false", 2, *sets)
    assert anew[:-1] == kept[:-1]
    assert (anew[-1], kept[-1]) == ("fetch 4, evict 0", "fetch 4, evict 2")


def test_lfu_breaks_ties_by_recency_or_by_key():
    assert told("lfu", 2, {0}, {1}, {2})[0][2] == "fetch 2, evict 0"
    assert told("lfu:ties=key", 2, {0}, {1}, {2})[0][2] == "fetch 2, evict 1"


def test_hits_come_before_misses_and_each_by_ascending_key():
    lines, _, _ = told("lru", 6, {1, 5}, {0, 1, 3, 5, 6})
    assert lines[1] == "hit 1, hit 5, fetch 0, fetch 3, fetch 6"


def test_queues_are_filled_in_that_order():
    # FIFO after {2}, {0, 1, 2}: 2, then 0, then 1. So they leave in that order.
    lines, _, _ = told("fifo", 3, {2}, {0, 1, 2}, {5}, {6}, {7})
    assert lines[2:] == ["fetch 5, evict 2", "fetch 6, evict 0", "fetch 7, evict 1"]


def test_a_demanded_key_is_never_the_victim_whatever_its_rank():
    # 0 is the oldest by far, but demanded; so 1 leaves.
    lines, _, kept = told("fifo", 2, {0}, {1}, {0, 2})
    assert lines[2] == "hit 0, fetch 2, evict 1"
    assert kept == {0, 2}


# --- |U| and the capacity


def test_as_many_slots_as_the_event_needs():
    lines, counts, kept = told("lru", 2, {0, 1}, {2, 3}, {2, 3})
    assert lines[1:] == ["fetch 2, evict 1, fetch 3, evict 0", "hit 2, hit 3"]
    assert (counts["evictions"], kept) == (2, {2, 3})


@pytest.mark.parametrize(
    ("policy", "evicted", "kept"),
    [
        ("lru", [5, 4, 3, 2], {0, 1}),  # one clock for all: the larger key leaves
        ("fifo", [0, 1, 2, 3], {4, 5}),
        ("mru", [5, 4, 3, 2], {0, 1}),
        ("belady", [5, 3, 2, 1], {0, 4}),  # 0 and 4 are used again
    ],
)
def test_a_wide_event_fetches_each_key_once_and_keeps_the_best(policy, evicted, kept):
    lines, counts, _ = told(policy, 2, set(range(6)), {0, 4})
    first = [f"fetch {key}" for key in range(6)] + [f"evict {key}" for key in evicted]
    assert lines[0] == ", ".join(first)
    hit = kept & {0, 4}
    assert lines[1].split(", ")[: len(hit)] == [f"hit {key}" for key in sorted(hit)]
    assert counts["compulsory"] == 6
    assert counts["unused_evictions"] == 0


def test_a_wide_event_serves_its_hits_first_and_once():
    # 7 is resident and not demanded: it leaves for the first miss. 4 is a hit and stays held.
    lines, counts, kept = told("fifo", 2, {4}, {7}, {0, 1, 4}, {0, 1})
    assert lines[2] == "hit 4, fetch 0, evict 7, fetch 1, evict 4"
    assert kept == {0, 1}
    assert counts["reuse_hits"] == 3


def test_one_fewer_slot_than_the_event_needs():
    lines, _, kept = told("lru", 3, {0, 1, 2, 3}, {0, 1, 2, 3})
    assert lines == ["fetch 0, fetch 1, fetch 2, fetch 3, evict 3", *["hit 0, hit 1, hit 2, fetch 3, evict 3"]]  # fmt: skip  # noqa: E501
    assert kept == {0, 1, 2}


def test_a_wide_event_of_one_pool_leaves_the_others_alone():
    trace, events = made([[{0, 1}, {2, 3}], [{0, 1, 2}, {2}], [{0}, {3}]], experts=4)
    lines, _, kept = _told("lru", [2, 2], trace, events, None)
    assert lines[2:] == ["hit 0, hit 1, fetch 2, evict 2", "hit 6", "hit 0", "hit 7"]
    assert kept == {0, 1, 6, 7}


@pytest.mark.parametrize("policy", ["lru", "fifo", "belady"])
def test_slots_stay_distinct_after_wide_events(policy):
    # The last keys of the first event have no slot at first; the ones they outlive hand theirs on.
    trace, events = made([[set(range(5))], [{6, 7}], [{0, 1, 2, 3}], [{4}]], experts=8)
    for stop in range(1, 5):
        part = slice_steps(trace, 0, stop)
        _, _, core = core_log(part, events[:stop], policy, [3])
        seated = {key: int(slot) for key, slot in enumerate(core.slot) if core.state[key]}
        assert len(seated) == 3
        assert sorted(seated.values()) == [0, 1, 2]
        assert all(core.key_in[slot] == key for key, slot in seated.items())


def test_the_digest_tells_what_left():
    # LRU throws out 1, FIFO 0; all else is the same.
    trace = build_trace(np.array([[[0]], [[1]], [[0]], [[2]]]), num_experts=3)
    (lru, one), (fifo, other) = (counted(trace, config(name, 2)) for name in ("lru", "fifo"))
    assert lru == fifo
    assert one.decision_digest != other.decision_digest


# --- misses


def test_a_collision_is_a_miss_on_what_left_earlier_in_the_same_step():
    # Two layers share two slots: layer 1 throws out what layer 0 of the next step wants.
    trace, events = made([[{0}, {0}], [{1}, {1}], [{0}, {0}]], experts=2)
    _, counts, _ = _told("lru", [2], trace, events, None)
    assert (counts["compulsory"], counts["capacity"], counts["collision"]) == (4, 2, 0)
    # Sequential: the key leaves and is wanted again within one step.
    trace = build_trace(np.array([[[0]], [[1]], [[0]]]), num_experts=2, step=[0, 0, 0])
    counts, _ = counted(trace, config(slots=1, sequential=True))
    assert (counts["compulsory"], counts["capacity"], counts["collision"]) == (2, 0, 1)
    # The same accesses over three steps.
    trace = build_trace(np.array([[[0]], [[1]], [[0]]]), num_experts=2)
    counts, _ = counted(trace, config(slots=1, sequential=True))
    assert (counts["compulsory"], counts["capacity"], counts["collision"]) == (2, 1, 0)


def test_a_collision_across_layers():
    # Step 1: layer 0 evicts key 2 (layer 1, expert 0), which layer 1 then wants.
    trace, events = made([[{0}, {0}], [{1}, {0}]], experts=2)
    lines, counts, _ = _told("mru", [2], trace, events, None)
    assert lines == ["fetch 0", "fetch 2", "fetch 1, evict 2", "fetch 2, evict 1"]
    assert (counts["compulsory"], counts["collision"]) == (3, 1)


def test_a_prefetched_key_that_left_unused_was_fetched_before():
    proposals = {0: [(5, 2)]}
    _, counts, _ = told("lru", 2, {0}, {1, 2}, {5}, proposals=proposals)
    assert (counts["compulsory"], counts["capacity"]) == (3, 1)
    assert (counts["issued"], counts["wasted"], counts["unused_evictions"]) == (1, 1, 1)


# --- prefetches


def test_what_is_resident_or_loading_is_redundant():
    proposals = {0: [(1, 2), (1, 3), (0, 2)]}
    lines, counts, _ = told("lru", 3, {0}, {1}, proposals=proposals)
    assert lines == ["fetch 0, prefetch 1", "hit 1"]
    assert (counts["issued"], counts["redundant"]) == (1, 2)


def test_a_prefetch_is_dropped_where_no_slot_may_be_taken():
    # All is demanded or loading: nothing may leave for 3.
    proposals = {0: [(2, 2), (3, 2)]}
    lines, counts, _ = told("lru", 2, {0}, {1}, proposals=proposals)
    assert lines[0] == "fetch 0, prefetch 2"
    assert counts["dropped"] == 1
    lines, counts, _ = told("lru", 1, {0}, {1}, proposals=proposals)
    assert lines[0] == "fetch 0"
    assert counts["dropped"] == 2


def test_a_prefetch_is_dropped_in_an_event_wider_than_the_cache():
    lines, counts, _ = told("lru", 2, {0, 1, 2}, proposals={0: [(5, 2)]})
    assert lines[0] == "fetch 0, fetch 1, fetch 2, evict 2"
    assert counts["dropped"] == 1


def test_a_prefetch_lands_before_the_next_event_and_may_then_leave():
    lines, _, _ = told("lru", 2, {0}, {1}, {2}, proposals={0: [(5, 9)]})
    assert lines[1:] == ["fetch 1, evict 5", "fetch 2, evict 0"]


def test_a_prefetch_stamps_the_clock_but_is_no_use():
    # 1 is prefetched in the event that uses 3. LRU: stamped alike, so 3 leaves. LFU: 0 uses are
    # fewer than 1.
    sets, proposals = ({2}, {3}, {4}, {6}), {1: [(1, 9)]}
    assert told("lru", 3, *sets, proposals=proposals)[0][2:] == [
        "fetch 4, evict 2",
        "fetch 6, evict 3",
    ]
    assert told("lfu", 3, *sets, proposals=proposals)[0][2] == "fetch 4, evict 1"
    _, counts, _ = told("lru", 4, {0}, {5}, {5}, proposals={0: [(5, 2)]})
    assert (counts["prefetch_hits"], counts["reuse_hits"], counts["wasted"]) == (1, 1, 0)


def test_a_redundant_prefetch_stamps_nothing():
    lines, _, _ = told("lru", 2, {0}, {1}, {2}, proposals={1: [(0, 9)]})
    assert lines[2] == "fetch 2, evict 0"


def test_a_prefetch_makes_a_key_current_for_least_stale():
    # Step 1: 5 is prefetched, 1 is stale; so 1 leaves although 5 came before the step's own use.
    trace, events = made([[{1}, {0}], [{0}, {1}]], experts=8)
    lines, _, _ = _told("least_stale", [3], trace, events, {1: [(5, 3)], 2: [(6, 4)]})
    assert lines[1] == "fetch 8, prefetch 5"
    # 1 and 5 are of layer 0 and stale in step 1, 5 later; 8 is of layer 1.
    assert lines[2] == "fetch 0, evict 1, evict 5, prefetch 6"
    assert lines[3] == "fetch 9, evict 8"


def test_prefetches_of_an_event_do_not_evict_each_other():
    proposals = {1: [(5, 3), (6, 3), (7, 3)]}
    lines, counts, _ = told("lru", 3, {0, 2}, {1}, proposals=proposals)
    assert lines[1] == "fetch 1, evict 2, prefetch 5, evict 0, prefetch 6"
    assert counts["dropped"] == 1


def test_the_guard_keeps_unused_prefetches_that_are_due_no_later():
    # At clock 1, 5 is fetched for clock 4 and 4 for clock 3; at clock 2, 6 is proposed.
    sets = ({0}, {1}, {2}, {5})
    late, soon = ({0: [(5, 4), (4, 3)], 1: [(6, due)]} for due in (4, 3))
    lines, counts, _ = told("fifo", 3, *sets, proposals=late, guard=True)
    assert lines[:2] == ["fetch 0, prefetch 5, prefetch 4", "fetch 1, evict 0"]
    assert counts["dropped"] == 1  # 5 and 4 are due no later than 6
    lines, _, _ = told("fifo", 3, *sets, proposals=soon, guard=True)
    assert lines[1] == "fetch 1, evict 0, evict 5, prefetch 6"  # 5 is due later than 6
    lines, _, _ = told("fifo", 3, *sets, proposals=late)
    assert lines[1] == "fetch 1, evict 0, evict 5, prefetch 6"  # no guard


def test_the_guard_lapses_when_the_prefetch_is_due_and_with_its_first_use():
    # 5 was due at clock 2 and was not wanted: it may leave for a prefetch of that event.
    proposals = {0: [(5, 2)], 1: [(6, 9)]}
    lines, _, _ = told("fifo", 2, {0}, {1}, proposals=proposals, guard=True)
    assert lines[1] == "fetch 1, evict 0, evict 5, prefetch 6"
    proposals = {0: [(5, 3)], 1: [(6, 9)]}
    lines, _, _ = told("fifo", 2, {0}, {1}, proposals=proposals, guard=True)
    assert lines[1] == "fetch 1, evict 0"
    used = {0: [(5, 9)], 2: [(6, 12)]}
    lines, _, _ = told("fifo", 2, {0}, {5}, {0}, proposals=used, guard=True)
    assert lines[2] == "hit 0, evict 5, prefetch 6"


def test_demand_is_not_bound_by_the_guard():
    lines, _, _ = told("mru", 2, {0}, {1}, proposals={0: [(5, 9)]}, guard=True)
    assert lines[1] == "fetch 1, evict 5"


def test_without_the_guard_deep_prefetches_throw_out_nearer_ones():
    # Pitfall 12: four layers of four experts ahead do not fit into ten slots.
    trace = synthetic(num_layers=16, num_experts=16, top_k=4, num_requests=2, decode_length=24)
    hits = {}
    for schedule in ("priority", "guard"):
        chosen = config(slots=10, prefetch="oracle:depth=4", schedule=schedule)
        counts, _ = counted(trace, chosen)
        hits[schedule] = (counts["reuse_hits"] + counts["prefetch_hits"]) / counts["accesses"]
    assert hits["guard"] > 0.9
    assert hits["priority"] < 0.5


# --- bypass


def bypass(policy, capacity, *sets, **more):
    return told(policy, capacity, *sets, admission=residency.BYPASS, **more)


def test_bypass_keeps_the_best_of_residents_and_newcomers():
    # Belady, one slot: 1 is used again before 0 and 2 are.
    lines, counts, _ = bypass("belady", 1, {1}, {0}, {2}, {1})
    assert lines == ["fetch 1", "fetch 0, bypass 0", "fetch 2, bypass 2", "hit 1"]
    assert (counts["bypassed"], counts["evictions"]) == (2, 0)
    assert counts["accesses"] == 4


def test_bypass_admits_what_is_better():
    lines, counts, kept = bypass("belady", 1, {1}, {0}, {0}, {1})
    assert lines == ["fetch 1", "fetch 0, evict 1", "hit 0", "fetch 1, bypass 1"]
    assert kept == {0}
    assert (counts["compulsory"], counts["capacity"]) == (2, 1)


def test_bypass_under_lru_is_lru():
    sets = ({0, 1}, {2, 3}, {1, 2}, {4}, {0, 2})
    assert bypass("lru", 3, *sets)[2] == told("lru", 3, *sets)[2]


def test_what_was_refused_did_not_leave():
    # 0 was refused in the step in which it is wanted again: no collision, for it was never in.
    trace, events = made([[{0}, {0}], [{1}, {0}]], experts=2)
    _, counts, _ = _told("belady", [1], trace, events, None, admission=residency.BYPASS)
    assert counts["collision"] == 0


# --- the walk over the trace


def requests(*steps_of_requests):
    """One layer; a list of (request, experts) a step, each expert its own token."""
    ids, step, request = [], [], []
    for number, parts in enumerate(steps_of_requests):
        for which, experts in parts:
            for expert in experts:
                ids.append([[expert]])
                step.append(number)
                request.append(which)
    return build_trace(np.array(ids), num_experts=8, step=step, request=request)


def test_reset_empties_the_cache_where_no_request_goes_on():
    trace = requests([(0, [0])], [(0, [0]), (1, [1])], [(1, [1])], [(2, [0, 1])])
    kept, _ = counted(trace, config(slots=4))
    emptied, _ = counted(trace, config(slots=4, reset="request"))
    assert kept["reuse_hits"] == 4
    assert emptied["reuse_hits"] == 2
    # What was ever fetched stays known: no second compulsory miss, and nothing was evicted.
    assert (emptied["compulsory"], emptied["capacity"], emptied["evictions"]) == (2, 2, 0)


def test_reset_writes_off_unused_prefetches():
    trace = requests([(0, [0])], [(1, [1])], [(2, [2])])
    chosen = config(slots=8, reset="request", prefetch="random:width=4")
    counts, _ = counted(trace, chosen)
    assert counts["issued"] == counts["prefetch_hits"] + counts["wasted"]
    assert counts["issued"] > 0


def test_the_warm_up_is_served_but_not_counted():
    trace = requests(*([(0, [expert])] for expert in (0, 1, 0, 2, 1)))
    counts, outcome = counted(trace, config(slots=4, warmup=2))
    assert outcome.first_step == 2
    assert (counts["accesses"], counts["reuse_hits"], counts["compulsory"]) == (3, 2, 1)
    whole, full = counted(trace, config(slots=4))
    assert whole["accesses"] == 5
    assert outcome.decision_digest == full.decision_digest


def test_sequential_mode_serves_access_by_access():
    # {0, 1} at once: atomic LRU stamps both alike; sequential, 1 came after 0.
    ids = np.array([[[1, 0]], [[2, 3]], [[1, 2]]])
    trace = build_trace(ids, num_experts=4)
    counts, _ = counted(trace, config(slots=3, sequential=True))
    # 1 0 2 3(evicts 1) 1(evicts 0) 2
    assert (counts["reuse_hits"], counts["evictions"]) == (1, 2)
    assert (counts["accesses"], counts["tokens"], counts["token_hits"]) == (6, 6, 1)


def test_sequential_mode_repeats_a_key_that_several_tokens_want():
    trace = build_trace(np.array([[[0]], [[0]], [[1]]]), num_experts=2, step=[0, 0, 0])
    assert counted(trace, config(slots=2, sequential=True))[0]["accesses"] == 3
    counts, _ = counted(trace, config(slots=2))
    assert (counts["accesses"], counts["tokens"]) == (2, 3)


def test_sequential_mode_admits_or_refuses_access_by_access():
    trace = build_trace(np.array([[[0]], [[1]], [[2]], [[0]], [[2]], [[0]]]), num_experts=3)
    lru = config(slots=1, sequential=True)
    counts, _ = counted(trace, lru.model_copy(update={"admission": "bypass"}))
    forced, _ = counted(trace, lru)
    assert counts == forced  # LRU never refuses
    assert counts["evictions"] == 5
    # Belady keeps 0 from its first use on.
    counts, _ = counted(trace, config("belady:bypass=true", 1, sequential=True))
    assert (counts["reuse_hits"], counts["bypassed"], counts["evictions"]) == (2, 3, 0)


def test_every_key_is_used_exactly_once_an_event():
    trace = synthetic(num_layers=3, num_experts=8, top_k=2, num_requests=4, batch=4)
    counts, outcome = counted(trace, config(slots=12))
    demanded = 0
    for step in np.split(trace.expert_ids, trace.step_starts[1:-1]):
        demanded += sum(len(np.unique(step[:, layer])) for layer in range(3))
    assert counts["accesses"] == demanded
    assert counts["tokens"] == trace.expert_ids.size
    assert outcome.counters[0].sum() == 0


def test_all_resident_and_nothing_resident():
    trace = synthetic(num_layers=2, num_experts=8, top_k=2, num_requests=2, decode_length=9)
    everything, _ = counted(trace, config(slots=1), residency="all")
    assert everything["reuse_hits"] == everything["accesses"]
    nothing, _ = counted(trace, config(slots=1), residency="none")
    assert nothing["bypassed"] == nothing["accesses"]
    assert nothing["compulsory"] + nothing["capacity"] == nothing["accesses"]
    assert nothing["evictions"] == 0
