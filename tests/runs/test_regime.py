"""The LRU cliff is where the report says it is; every caution appears exactly when it is due."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import specmd
from specmd.runs.options import RunConfig
from specmd.runs.regime import LOOPING_SHARE, cautions, decodes_one_by_one, regime
from specmd.runs.resolve import grid
from specmd.trace import DECODE, PREFILL, build_trace, interleave, locality, synthetic


def decode(layers=4, experts=8, top_k=2, length=12, **more):
    return synthetic(
        num_layers=layers,
        num_experts=experts,
        top_k=top_k,
        num_requests=2,
        decode_length=length,
        **more,
    )


def configured(trace, **options):
    (config,) = grid(trace, **options)
    return config


def warned(trace, evict="lru", capacity=6, **options):
    run = specmd.simulate(trace, evict, capacity, bounds=False, interpreted=True, **options)
    return run, [text for text in run.warnings if "never hits" in text]


def test_the_cliff_is_explained_in_these_words():
    trace = decode(layers=16, experts=64, top_k=8, length=3)
    _, (text,) = warned(trace, capacity=51)
    assert text.startswith(
        "global lru with C <= T - K never hits in batch-1 decode (C=51, T=128, K=8)"
    )


@given(
    st.integers(2, 4),
    st.integers(1, 3),
    st.integers(0, 5),
    st.sampled_from(["lru", "fifo"]),
    st.booleans(),
    st.data(),
)
@settings(max_examples=30, deadline=None)
def test_where_the_cliff_is_claimed_there_is_no_hit(layers, top_k, seed, evict, sequential, data):
    trace = decode(layers, 5, top_k, 8, seed=seed, reuse=0.9)
    capacity = data.draw(st.integers(1, layers * top_k - top_k))
    run = specmd.simulate(
        trace, evict, capacity, sequential=sequential, bounds=False, interpreted=True
    )
    assert run.metrics["hits"] == 0
    claimed = any(text.startswith(f"global {evict} with C <= T - K") for text in run.warnings)
    assert claimed == (run.metrics["compulsory_misses"] < run.metrics["accesses"])


def test_one_slot_above_the_cliff_there_can_be_hits_and_nothing_is_claimed():
    # Every layer uses expert 0 in every step: T = 3, K = 1, so the cliff ends at C = 2.
    trace = build_trace(np.zeros((4, 3, 1), int), num_experts=4)
    below = specmd.simulate(trace, capacity=2, bounds=False, interpreted=True)
    above = specmd.simulate(trace, capacity=3, bounds=False, interpreted=True)
    assert (below.metrics["hits"], above.metrics["hits"]) == (0, 9)
    assert any("T - K" in text for text in below.warnings)
    assert not any("T - K" in text for text in above.warnings)


@pytest.mark.parametrize(
    "evict",
    ["lru", "fifo", "arc", "sieve", "slru", "s3fifo", "lfu:resident=true",
     "least_stale:order=fifo", "least_stale", "mru", "lfu"],
)  # fmt: skip
def test_whoever_never_hits_is_told_so_by_result_not_by_name(evict):
    trace = decode(layers=6, experts=8, top_k=2, length=30)  # T = 12, K = 2
    run, found = warned(trace, evict, 8)
    assert bool(found) == (run.metrics["hits"] == 0)
    if evict in ("lru", "fifo", "arc", "sieve", "slru", "lfu:resident=true"):
        assert found
        assert "C <= T - K" in found[0]


@pytest.mark.parametrize(
    "options",
    [{"evict": "least_stale"}, {"prefetch": "prev_token", "capacity": 7}, {"capacity": 8}],
)
def test_nothing_is_claimed_where_there_are_hits(options):
    trace = decode(length=60)  # T = 8, K = 2
    assert warned(trace)[1]
    run, found = warned(trace, **options)
    assert run.metrics["hits"] > 0
    assert found == []


@pytest.mark.parametrize(("scope", "capacity"), [("layer", "2/layer"), ("global", 2)])
def test_slots_that_every_event_fills_leave_nothing_to_choose(scope, capacity):
    trace = decode(length=20)
    runs = [warned(trace, evict, capacity, scope=scope)[0] for evict in ("lru", "mru", "lfu")]
    assert len({run.metrics["misses"] for run in runs}) == 1
    assert all(
        any("no eviction policy can matter" in text for text in run.warnings) for run in runs
    )
    more = warned(trace, capacity="3/layer" if scope == "layer" else 3, scope=scope)[0]
    assert not any("no eviction policy" in text for text in more.warnings)
    bypass = warned(trace, capacity=capacity, scope=scope, admission="bypass")[0]
    assert not any("no eviction policy" in text for text in bypass.warnings)


def test_batches_and_prefill_alone_are_not_batch_1_decode():
    batch = interleave(decode(), 2)
    assert not decodes_one_by_one(batch)
    assert not any("batch-1" in text for text in warned(batch)[1])
    lonely_end = build_trace(np.zeros((3, 3, 1), int), num_experts=4, step=[0, 0, 1])
    assert not decodes_one_by_one(lonely_end)
    prefill = build_trace(np.zeros((4, 3, 1), int), num_experts=4, phase=PREFILL)
    assert not decodes_one_by_one(prefill)
    mixed = build_trace(
        np.zeros((4, 3, 1), int),
        num_experts=4,
        step=[0, 0, 1, 2],
        phase=[PREFILL, PREFILL, DECODE, DECODE],
    )
    assert decodes_one_by_one(mixed)


def test_the_regime_by_hand():
    # Two layers; step 0 prefills two tokens (3 and 2 keys), steps 1 and 2 decode (2 and 2 keys).
    ids = [[[0, 1], [0, 1]], [[0, 2], [0, 1]], [[0, 1], [2, 3]], [[0, 1], [2, 3]]]
    trace = build_trace(
        ids, num_experts=4, step=[0, 0, 1, 2], phase=[PREFILL, PREFILL, DECODE, DECODE]
    )
    found = regime(locality(trace), trace.header, RunConfig(capacity="3", capacity_slots=3))
    assert found.layer_capacity == 1.5
    assert found.r_p50 == 2 / 1.5
    assert found.working_set_mean == (5 + 4 + 4) / 3
    assert found.working_set_p50 == 4
    assert found.capacity_over_working_set == 3 / 4
    assert (found.keys_used, found.keys_total) == (7, 8)


def cautioned(trace, capacity=3, **options):
    return specmd.simulate(
        trace, "least_stale", capacity, bounds=False, interpreted=True, **options
    ).warnings


def relabelled(trace, **header):
    from dataclasses import replace

    return replace(trace, header=trace.header.model_copy(update=header))


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"kind": "synthetic"}, "synthetic"),
        ({"complete": False}, "truncated"),
        ({"expert_bytes": None}, "how large an expert is"),
    ],
)
def test_what_the_header_admits_is_said(header, words):
    clean = {"kind": "recorded", "complete": True, "expert_bytes": 10}
    trace = decode(length=30)
    assert not any(words in text for text in cautioned(relabelled(trace, **clean)))
    assert any(words in text for text in cautioned(relabelled(trace, **clean | header)))


def test_a_cache_that_holds_everything_is_said():
    trace = decode(length=30)
    used = locality(trace).keys_used
    assert any("holds every key" in text for text in cautioned(trace, used))
    assert not any("holds every key" in text for text in cautioned(trace, used - 1))


def test_a_trace_shorter_than_its_warm_up_is_said():
    trace = decode(length=10)  # 20 steps
    assert any("shorter than its warm-up" in text for text in cautioned(trace, warmup=11))
    assert not any("shorter than its warm-up" in text for text in cautioned(trace, warmup=10))


def test_a_trace_too_short_for_its_capacity_is_said():
    assert any("are compulsory" in text for text in cautioned(decode(length=2), 30))
    assert not any("are compulsory" in text for text in cautioned(decode(length=60), 3))


def test_repetitive_text_is_said():
    free = decode(length=40, layers=2, experts=32, zipf=0, reuse=0)
    config = configured(free, capacity=3)
    run = specmd.simulate(free, capacity=3, bounds=False, interpreted=True)
    calm = locality(free)
    assert calm.looping_requests == 0
    for share, said in ((0.0, False), (LOOPING_SHARE, False), (0.5, True), (None, False)):
        found = calm.model_copy(update={"looping_requests": share})
        texts = cautions(free, config, run.trace, found, run.metrics)
        assert any("repetitive" in text for text in texts) == said


def test_an_uncalibrated_profile_and_an_unknown_shape_are_said():
    trace = decode(expert_bytes=1000)
    texts = specmd.simulate(
        trace, capacity=4, profile="h200", bounds=False, interpreted=True
    ).warnings
    assert any("not calibrated" in text for text in texts)
    assert any("model shape unknown" in text for text in texts)
