"""Curves against a run at every capacity, on random traces and on recorded ones."""

from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmd.core.state import COMPULSORY_MISSES, PREFETCH_HITS, REUSE_HITS
from specmd.runs.options import RunConfig
from specmd.runs.pools import pools_of
from specmd.simulation.curves import curve
from specmd.simulation.replay import replay
from specmd.trace import load, slice_steps, synthetic
from specmd.trace.importers import import_trace

SHIPPED = Path(__file__).parents[2] / "traces"
SHARED = Path(__file__).parents[3] / "shared" / "traces"
RULES = ["lru", "belady", "belady:bypass=true"]
STARTS = {"lru": ["cache"], "belady": ["cache", "seen", "any"]}


def configured(rule, slots=1, **options):
    return RunConfig(evict=rule, capacity=str(slots), capacity_slots=slots, **options)


def compare(trace, rule, slots, *, start="cache", interpreted=True, depth=None, **options):
    """Compare the curve with a run at each of some capacities, hits by phase and layer."""
    whole = configured(rule, **options)
    found = curve(trace, whole, rule, start=start, interpreted=interpreted, depth=depth)
    for each in slots:
        config = configured(rule, each, **options)
        counted = replay(trace, config, residency=start, interpreted=interpreted).counters
        hits = found.hits(pools_of(trace.header, config).slots)
        expected = counted[..., REUSE_HITS] + counted[..., PREFETCH_HITS]
        np.testing.assert_array_equal(hits, expected, f"{rule} at {each} of {options}")
        assert found.accesses == counted[..., 0].sum()
        if start == "cache" and each >= trace.header.num_layers * trace.header.num_experts:
            misses = found.accesses - int(hits.sum())
            assert misses == found.first_uses >= counted[..., COMPULSORY_MISSES].sum()
    return found


@st.composite
def traces(draw):
    """Small traces with prefills and batches: many an event is wider than the cache."""
    experts = draw(st.integers(1, 9))
    return synthetic(
        num_layers=draw(st.integers(1, 3)),
        num_experts=experts,
        top_k=draw(st.integers(1, min(3, experts))),
        num_requests=draw(st.integers(1, 4)),
        prompt_length=draw(st.integers(0, 6)),
        decode_length=draw(st.integers(1, 12)),
        batch=draw(st.integers(1, 3)),
        raggedness=draw(st.sampled_from([0.0, 0.7])),
        zipf=draw(st.sampled_from([0.0, 1.0])),
        seed=draw(st.integers(0, 99)),
    )


@pytest.mark.parametrize("rule", RULES)
@given(data=st.data(), trace=traces())
@settings(max_examples=25, deadline=None)
def test_the_curve_equals_a_run_at_each_capacity(rule, data, trace):
    options = {
        "scope": data.draw(st.sampled_from(["global", "layer"])),
        "reset": data.draw(st.sampled_from(["none", "request"])),
        "sequential": data.draw(st.sampled_from([False, False, True])),
        "warmup": data.draw(st.integers(0, min(3, len(np.unique(trace.step)) - 1))),
    }
    start = data.draw(st.sampled_from(STARTS[rule.partition(":")[0]]))
    keys = trace.header.num_layers * trace.header.num_experts
    slots = data.draw(
        st.lists(st.integers(1, keys + 1), min_size=min(3, keys), max_size=6, unique=True)
    )
    compare(trace, rule, slots, start=start, **options)


@pytest.mark.parametrize("rule", RULES)
@given(trace=traces(), depth=st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_a_curve_that_is_cut_is_the_whole_one_up_to_there(rule, trace, depth):
    for scope in ("global", "layer"):
        whole = curve(trace, configured(rule, scope=scope), rule, interpreted=True)
        cut = curve(trace, configured(rule, scope=scope), rule, depth=depth, interpreted=True)
        known = cut.found.shape[2]
        np.testing.assert_array_equal(cut.found, whole.found[..., :known])
        assert (cut.accesses, cut.first_uses) == (whole.accesses, whole.first_uses)


def test_a_curve_is_not_asked_beyond_its_cut():
    trace = synthetic(num_layers=2, num_experts=8, top_k=2, decode_length=5)
    cut = curve(trace, configured("belady"), "belady", depth=5, interpreted=True)
    cut.hits([5])
    with pytest.raises(ValueError, match="cut at 5"):
        cut.hits([6])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("file", ["tiny-prose-b1", "tiny-mixed-b8"])
def test_recorded_traces_interpreted_and_compiled(rule, file):
    trace = slice_steps(load(SHIPPED / f"{file}.npz"), 0, 60)
    keys = trace.header.num_layers * trace.header.num_experts
    slots = [5, keys // 3]
    for options in ({}, {"scope": "layer", "warmup": 4}):
        here = compare(trace, rule, slots, **options)
        there = curve(trace, configured(rule, **options), rule)
        np.testing.assert_array_equal(here.found, there.found)


def test_the_curve_of_lru_numbers_its_moments_anew():
    # Far more uses than moments: 2 keys a step of 4, 300 steps.
    trace = synthetic(num_layers=1, num_experts=4, top_k=2, decode_length=300, num_requests=1)
    compare(trace, "lru", range(1, 5))
    compare(trace, "lru", range(1, 5), sequential=True)


@pytest.mark.parametrize("file", ["olmoe_1b_7b_decode", "gptoss_20b_decode"])
def test_traces_made_by_others(file):
    path = SHARED / f"{file}.npz"
    if not path.exists():
        pytest.skip("shared/traces is not here")
    experts = 64 if file.startswith("olmoe") else 32
    trace = slice_steps(import_trace(path, num_experts=experts), 0, 2000)
    keys = trace.header.num_layers * experts
    for rule, scope in product(RULES, ("global", "layer")):
        compare(trace, rule, [keys // 20, keys // 3], scope=scope, interpreted=False)


def test_more_slots_never_hit_less():
    trace = slice_steps(load(SHIPPED / "tiny-mixed-b8.npz"), 0, 60)
    config = configured("lru")
    curves = [
        curve(trace, config, rule, interpreted=True).all_hits(trace.header, config)
        for rule in RULES
    ]
    lru, belady, bypass = (each.tolist() for each in curves)
    for found in (lru, belady, bypass):
        assert found[0] == 0
        assert all(a <= b for a, b in pairwise(found))
    assert all(a <= b <= c for a, b, c in zip(lru, belady, bypass, strict=True))
    assert lru[-1] == belady[-1] == bypass[-1]
