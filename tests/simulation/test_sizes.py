"""Experts of several sizes: slots in size classes, true bytes, times by size."""

import dataclasses

import numpy as np
import pytest
from learned_files import others

from specmd.core.state import CAPACITY_MISSES, COLLISION_MISSES, COMPULSORY_MISSES
from specmd.runs.options import RunConfig
from specmd.runs.pools import pools_of
from specmd.simulation.bounds import bounds
from specmd.simulation.costs import CostCoefficients
from specmd.simulation.curves import curve
from specmd.simulation.replay import replay
from specmd.simulation.simulate import run_config
from specmd.trace import synthetic

SIZES = (100, 300, 100, 200, 300, 100)
MOVES = ("demand", "prefetch_useful", "prefetch_wasted")
MISSES = (COMPULSORY_MISSES, COLLISION_MISSES, CAPACITY_MISSES)


@pytest.fixture
def trace():
    made = synthetic(
        num_layers=6, num_experts=8, top_k=2, prompt_length=5, decode_length=30, num_requests=3,
        lookahead_depth=2, expert_bytes=183, seed=11,
    )  # fmt: skip
    header = made.header.model_copy(update={"expert_bytes_by_layer": SIZES})
    return dataclasses.replace(made, header=header)


def part(trace, layers):
    """The trace of some layers alone: what one size class sees."""
    header = trace.header.model_copy(
        update={"num_layers": len(layers), "expert_bytes_by_layer": None, "digest": ""}
    )
    kept = {name: getattr(trace, name) for name in ("weights", "lookahead")}
    return dataclasses.replace(
        trace, header=header, expert_ids=np.ascontiguousarray(trace.expert_ids[:, layers]),
        **dict.fromkeys(kept),
    )  # fmt: skip


def configured(**options):
    return RunConfig(**{"capacity": "18", "capacity_slots": 18} | options)


# Policies whose memory of a key does not depend on how many other layers there are.
ALONE = ("lru", "fifo", "lfu", "mru", "belady", "slru", "sieve")


@pytest.mark.parametrize("evict", ALONE)
def test_a_size_class_is_a_cache_of_its_layers_alone(trace, evict):
    config = configured(evict=evict)
    whole = replay(trace, config).counters[..., MISSES].sum(axis=(0, 2))
    pools = pools_of(trace.header, config)
    assert pools.slots == (9, 3, 6)
    for pool, slots in enumerate(pools.slots):
        layers = [layer for layer, own in enumerate(pools.of_layer) if own == pool]
        alone = replay(part(trace, layers), configured(evict=evict, capacity_slots=slots))
        np.testing.assert_array_equal(
            whole[layers], alone.counters[..., MISSES].sum(axis=(0, 2)), str(layers)
        )


@pytest.mark.parametrize("evict", ["lru", "belady", "lrfu"])
def test_compiled_and_interpreted_decide_alike(trace, evict):
    config = configured(evict=evict, prefetch="next_gate")
    found = [replay(trace, config, interpreted=slow, compiled=not slow) for slow in (True, False)]
    assert found[0].decision_digest == found[1].decision_digest
    np.testing.assert_array_equal(found[0].counters, found[1].counters)


def test_a_frozen_set_is_the_most_popular_of_each_size(trace):
    found = replay(trace, configured(evict="static"), training=others(trace)).counters
    assert found[..., MISSES].sum() > 0
    assert found[..., 10].sum() == 0  # evictions


def test_bytes_are_those_of_the_layers_that_moved_them(trace):
    config = configured(prefetch="next_gate", evict="lru")
    run = run_config(trace, config)
    by_layer = run.per_layer
    for kind, counts in {
        "bytes_demand": ("misses",),
        "bytes_prefetch_useful": ("prefetch_useful", "prefetch_late"),
        "bytes_prefetch_wasted": ("prefetch_wasted",),
    }.items():
        experts = np.array([by_layer[name] for name in counts]).sum(axis=0)
        assert by_layer[kind] == (experts * np.array(SIZES)).tolist()
        assert run.metrics[kind] == sum(by_layer[kind])
    assert run.metrics["prefetch_wasted"] > 0
    moved = sum(run.metrics[f"bytes_{kind}"] for kind in MOVES)
    assert run.metrics["bytes_per_token"] == moved / trace.num_tokens
    assert run.regime.slots_bytes == 9 * 100 + 3 * 200 + 6 * 300


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("rule", ["lru", "belady", "belady:bypass=true"])
def test_curves_are_of_the_same_classes(trace, rule, scope):
    admission = "bypass" if "bypass" in rule else "forced"
    whole = curve(trace, configured(evict=rule, scope=scope, admission=admission), rule)
    for slots in (3, 9, 20, 48):
        config = configured(evict=rule, scope=scope, admission=admission, capacity_slots=slots)
        counted = replay(trace, config).counters
        hits = whole.hits(pools_of(trace.header, config).slots)
        expected = counted[..., 0] - counted[..., MISSES].sum(axis=-1)
        np.testing.assert_array_equal(hits, expected)
        assert whole.all_hits(trace.header, config)[slots] == hits.sum()


def test_no_policy_beats_the_bounds_of_its_classes(trace):
    for evict in ("lru", "lfu", "least_stale", "arc", "random"):
        run = run_config(trace, configured(evict=evict))
        assert run.bounds.belady_bypass.misses <= run.bounds.belady.misses <= run.metrics["misses"]


def test_time_is_by_size():
    # One layer of 100 bytes, one of 300; one expert each, no slot: 1 s and 3 s of link a step.
    made = synthetic(num_layers=2, num_experts=2, top_k=1, decode_length=4, num_requests=1)
    header = made.header.model_copy(
        update={"expert_bytes": 200, "expert_bytes_by_layer": (100, 300)}
    )
    trace = dataclasses.replace(made, header=header)
    none = dict.fromkeys(CostCoefficients._fields, 0.0)
    costs = CostCoefficients(**none | {"bytes_per_s": 100.0, "chunk_bytes": 100.0})
    config = RunConfig(capacity="2", capacity_slots=2)
    away = replay(trace, config, costs=costs, residency="none")
    assert away.step_seconds.sum(axis=1).tolist() == [4.0] * 4
    there = costs._replace(read_s_per_byte=0.01)
    resident = replay(trace, config, costs=there, residency="all")
    assert resident.step_seconds.sum(axis=1).tolist() == [4.0] * 4
    found = bounds(trace, config, {"misses": 8}, costs=costs)
    assert found.no_cache.total_s == 16.0
    assert found.roofline_s <= found.belady.total_s
