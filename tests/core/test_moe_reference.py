"""Policies that know of layers, steps and weights, decision by decision against plain Python."""

import numpy as np
import pytest
from moe_rules import PINS, RULES, HotTail, Pinned, hot_set
from reference import BYPASS, EVICT, FETCH, HIT, PREFETCH, Reference, core_log, random_steps

from specmd.core import state as residency
from specmd.core.event import Training

PLACES = [
    {},
    {"pools": True},
    {"prefetches": True},
    {"prefetches": True, "guard": True},
    {"prefetches": True, "guard": True, "pools": True},
    {"bypass": True},
    {"bypass": True, "prefetches": True, "guard": True},
]


def setting(seed, *, pools=False, prefetches=False, guard=False, bypass=False):
    """A random trace with its events, the slots of its pools, and how it is run."""
    trace, steps = random_steps(seed, prefetches=prefetches)
    rng = np.random.default_rng(seed + 1_000_000)
    header = trace.header
    pools = header.num_layers if pools else 1
    keys = header.num_layers * header.num_experts
    capacity = rng.integers(0 if rng.random() < 0.1 else 1, keys // pools + 1, pools).tolist()
    told = {"guard": guard, "popularity": rng.integers(0, 5, keys).astype(float)}
    return trace, steps, capacity, bypass, told


def decided(name, place, **more):
    """The log and the counters of the core."""
    trace, steps, capacity, bypass, told = place
    admission = residency.BYPASS if bypass else residency.FORCED
    log, counts, _ = core_log(trace, steps, name, capacity, admission=admission, **told, **more)
    return log, counts


def compare(name, place, rule, kept=(), **more):
    trace, steps, capacity, bypass, told = place
    header = trace.header
    sizes = header.num_layers, header.num_experts
    reference = Reference(
        steps, *sizes, len(capacity), capacity, name,
        bypass=bypass, rule=rule, kept=kept, top_k=header.top_k, **told,
    )  # fmt: skip
    expected, counts = reference.run()
    where = f"{name} of {trace.digest} with {capacity} slots"
    found, total = decided(name, place, **more)
    for i, (ours, theirs) in enumerate(zip(found, expected, strict=False)):
        assert ours == theirs, f"{where}: decision {i}: {found[i - 8 : i + 1]}, not {theirs}"
    assert len(found) == len(expected), where
    assert total == counts, where


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("name", RULES)
def test_the_policy_decides_as_its_rule_does(name, place):
    for seed in range(8):
        seed += 100 * PLACES.index(place)
        compare(name, setting(seed, **place), RULES[name])


# --- hot sets


def training_of(trace):
    """The rows of a trace as a policy is shown them."""
    none = np.zeros((0, 0, 0))
    facts = (np.asarray(column, np.int64) for column in (trace.step, trace.request, trace.phase))
    ids, weights = trace.expert_ids.astype(np.int64), np.asarray(trace.weights, np.float64)
    return Training(ids, weights, none, none[None], *facts)


def ranked_rows(training):
    """(layer, experts by falling weight) of every token in every layer."""
    return [
        (layer, [int(e) for _, e in sorted(zip(-weight, row, strict=True), key=lambda p: p[0])])
        for ids, weights in zip(training.expert_ids, training.weights, strict=True)
        for layer, (row, weight) in enumerate(zip(ids, weights, strict=True))
    ]


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("name", PINS)
def test_the_hot_set_is_what_its_rule_says(name, place):
    for seed in range(8):
        seed += 100 * PLACES.index(place)
        trace, _, capacity, _, told = made = setting(seed, **place)
        training = training_of(trace)
        layers, experts = trace.header.num_layers, trace.header.num_experts
        spelled = name if name != "hot_tail" else "hot_tail:share=0.5"
        kept = hot_set(
            spelled, ranked_rows(training), layers, experts, len(capacity), capacity,
            told["popularity"],
        )  # fmt: skip
        rule = Pinned if name.startswith("static") else HotTail
        compare(name, made, rule, kept, training=training)


# --- what is the same as something else


def test_two_generations_by_access_are_lru_whatever_happens():
    for place in PLACES:
        for seed in range(12):
            made = setting(seed + 500, **place)
            assert decided("ls_2gen_access", made) == decided("lru", made)
            assert decided("least_stale:order=recent", made) == decided("lru", made)


def test_two_queues_are_the_fifo_order_of_least_stale():
    for place in PLACES:
        for seed in range(12):
            made = setting(seed + 600, **place)
            assert decided("ls_2gen_fifo", made) == decided("least_stale:order=fifo", made)


def test_two_queues_are_lru_where_a_key_is_touched_once_a_step_and_an_event_has_one():
    looked_at = 0
    for place in ({}, {"pools": True}, {"bypass": True}):
        for seed in range(60):
            _, steps, *_ = made = setting(seed + 600, **place)
            if all(len(step.tokens) == 1 for step in steps):
                assert decided("ls_2gen_fifo", made) == decided("lru", made)
                looked_at += 1
    assert looked_at > 10


def test_heat_that_protects_nothing_and_a_window_too_short_for_its_threshold_are_lru():
    for place in PLACES:
        for seed in range(12):
            made = setting(seed + 700, **place)
            expected = decided("lru", made)
            assert decided("heat:hot=0", made) == expected
            # No key is used 40 times in a trace of 35 tokens.
            assert decided("dali:window=40,hot=1", made) == expected


def test_gate_averages_that_fade_alike_are_mrs_where_it_looks_at_all_experts():
    looked_at = 0
    for seed in range(60):
        trace, steps, *_ = made = setting(seed + 800)
        if max(len(step.tokens) for step in steps) <= 2 * trace.header.top_k:
            assert decided("gate_ema:rate=0.5,fade=true", made) == decided("mrs", made)
            looked_at += 1
    assert looked_at > 10


def test_hobbit_with_one_weight_is_lru_lfu_or_layer_distance():
    # A whiff of recency breaks the ties of the others as they do.
    for place in PLACES:
        for seed in range(40):
            trace, *_ = made = setting(seed + 1000, **place)
            for weights, other in (
                ("lru=1,lfu=0,lhu=0,fld=0", "lru"),
                ("lru=1e-9,lfu=0,lhu=0,fld=1", "layer_distance"),
                ("lru=1e-9,lfu=1,lhu=0,fld=0", "lfu"),
            ):
                one = (np.diff(trace.phase.astype(int)) >= 0).all()  # sequence
                if other != "lfu" or one:
                    assert decided(f"hobbit:{weights}", made) == decided(other, made)


def test_lrfu_that_forgets_nothing_is_lfu_of_residents():
    for place in ({}, {"pools": True}, {"bypass": True}):
        for seed in range(20):
            made = setting(seed + 1200, **place)
            assert decided("lrfu:decay=0", made) == decided("lfu:resident=true", made)


def test_hysteresis_without_a_ratio_keeps_the_hottest():
    for seed in range(20):
        made = setting(seed + 1100, bypass=True)
        swaps, waits = (
            decided(f"hysteresis:ratio={ratio}", made)[1]["evictions"] for ratio in (0, 1.3)
        )
        assert swaps >= waits


def test_a_tail_without_pins_is_lru():
    for place in PLACES[:5]:
        for seed in range(12):
            made = setting(seed + 900, **place)
            assert decided("hot_tail:share=0", made) == decided("lru", made)


def test_pins_without_a_tail_hit_as_the_frozen_set_does():
    coming = {HIT, FETCH, PREFETCH}
    for place in PLACES[:5]:
        for seed in range(12):
            made = setting(seed + 900, **place)
            (ours, counts), (theirs, expected) = (
                decided(name, made) for name in ("hot_tail:share=1", "static")
            )
            assert [e for e in ours if e[0] in coming] == [e for e in theirs if e[0] in coming]
            assert counts["dropped"] == expected["dropped"]
            # What passes by is evicted at the event's end, or was never admitted.
            assert counts["evictions"] == expected["bypassed"]
            assert {BYPASS, EVICT}.isdisjoint(what for what, _ in theirs)
