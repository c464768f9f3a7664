"""Declarations are complete and consistent; counters add up, or it is called a bug."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import specmd
from specmd.core import state as residency
from specmd.errors import SpecmdError
from specmd.runs.counters import (
    MISSES,
    UNMOVED,
    AccountingError,
    by_layer,
    by_phase,
    check,
    tally,
)
from specmd.runs.metrics import METRICS, choices, metric
from specmd.trace import synthetic

SMALL = st.integers(0, 50)
SUMMED = [name for name, each in METRICS.items() if each.group in ("count", "prefetch", "bytes")]
SUMMED = [name for name in SUMMED if METRICS[name].unit in ("count", "bytes")]


@st.composite
def consistent_counters(draw, layers=3):
    """Counters of a possible run: (2, layers, NUM_COUNTERS)."""
    shape = (2, layers, residency.NUM_COUNTERS)
    size = int(np.prod(shape))
    counters = np.array(draw(st.lists(SMALL, min_size=size, max_size=size))).reshape(shape)
    kinds = slice(residency.REUSE_HITS, residency.CAPACITY_MISSES + 1)
    counters[..., residency.ACCESSES] = counters[..., kinds].sum(axis=-1)
    counters[..., residency.TOKEN_ACCESSES] += counters[..., residency.TOKEN_HITS]
    left = counters[..., list(MISSES)].sum(axis=-1)
    for answer in (residency.LOWBIT_FETCHES, *UNMOVED):  # each miss is answered once
        counters[..., answer] = np.minimum(counters[..., answer], left)
        left = left - counters[..., answer]
    ended = [
        residency.PREFETCH_HITS,
        residency.LATE_HITS,
        residency.PREFETCH_WASTED,
        residency.PREFETCH_CANCELLED,
    ]
    counters[..., residency.PREFETCH_ISSUED] = counters[..., ended].sum(axis=-1)
    return counters


def test_a_run_fills_exactly_the_declared_metrics():
    trace = synthetic(num_layers=2, num_experts=4, top_k=2, num_requests=2, prompt_length=3)
    run = specmd.simulate(trace, capacity=4, bounds=False, interpreted=True)
    assert list(run.metrics) == list(METRICS)
    assert set(run.per_layer) <= set(METRICS)
    assert all(set(found) <= set(METRICS) for found in run.per_phase.values())


@given(consistent_counters())
def test_consistent_counters_pass(counters):
    check(counters)


@given(
    consistent_counters(),
    st.sampled_from(
        [
            residency.ACCESSES,
            residency.REUSE_HITS,
            residency.PREFETCH_HITS,
            residency.LATE_HITS,
            residency.COMPULSORY_MISSES,
            residency.COLLISION_MISSES,
            residency.CAPACITY_MISSES,
            residency.PREFETCH_ISSUED,
            residency.PREFETCH_WASTED,
            residency.PREFETCH_CANCELLED,
        ]
    ),
    st.sampled_from([-1, 1]),
)
def test_one_wrong_count_is_an_internal_error(counters, column, error):
    counters[1, 2, column] += error
    with pytest.raises(AccountingError):
        check(counters)


def test_more_token_hits_than_tokens_is_an_internal_error():
    counters = np.zeros((2, 1, residency.NUM_COUNTERS), np.int64)
    counters[0, 0, residency.TOKEN_HITS] = 1
    with pytest.raises(AccountingError, match="token"):
        check(counters)


@given(consistent_counters(), st.sampled_from([None, 1, 12_582_912]))
def test_totals_are_the_sums_of_phases_and_of_layers(counters, expert_bytes):
    sizes = expert_bytes and tuple(range(expert_bytes, expert_bytes + counters.shape[1]))
    total = tally(counters.sum(axis=0), sizes)
    layers = by_layer(counters, sizes)
    phases = by_phase(counters, sizes)
    assert total["accesses"] == total["hits"] + total["late_hits"] + total["misses"]
    for name in SUMMED:
        if name in total and total[name] is not None:
            assert total[name] == sum(layers[name])
            if total["accesses"] and len(phases) == 2:
                assert total[name] == sum(found[name] for found in phases.values())


def test_a_row_by_hand():
    row = np.zeros(residency.NUM_COUNTERS, np.int64)
    row[residency.ACCESSES] = 40
    row[residency.REUSE_HITS] = 9
    row[residency.PREFETCH_HITS] = 1
    row[residency.LATE_HITS] = 5
    row[residency.COMPULSORY_MISSES] = 12
    row[residency.COLLISION_MISSES] = 10
    row[residency.CAPACITY_MISSES] = 3
    row[residency.TOKEN_ACCESSES] = 80
    row[residency.TOKEN_HITS] = 60
    row[residency.PREFETCH_ISSUED] = 8
    row[residency.PREFETCH_WASTED] = 2
    found = tally(row[None], (100,), tokens=4)
    assert (found["hits"], found["misses"]) == (10, 25)
    assert (found["hit_rate"], found["token_hit_rate"]) == (0.25, 0.75)
    assert (found["late_rate"], found["collision_rate"]) == (0.125, 0.25)
    assert found["prefetch_precision"] == 0.75
    assert found["bytes_demand"] == 2500
    assert found["bytes_prefetch_useful"] == 600
    assert found["bytes_prefetch_wasted"] == 200
    assert found["bytes_per_token"] == 825
    assert found["no_cache_bytes_per_token"] == 1000


def test_rates_of_nothing_and_bytes_of_unknown_experts_are_none():
    found = tally(np.zeros((1, residency.NUM_COUNTERS), np.int64), None, tokens=3)
    assert found["hit_rate"] is None
    assert found["bytes_demand"] is None
    assert found["bytes_per_token"] is None


def test_an_unknown_metric_names_the_closest():
    with pytest.raises(SpecmdError, match="hit_rate"):
        metric("hit_rat")


def test_choices_keep_the_order_of_columns_and_cover_every_group():
    assert choices() == list(METRICS)
    groups = ("count", "rate", "prefetch", "bytes", "time", "quality")
    assert sorted(name for group in groups for name in choices(group)) == sorted(METRICS)


def test_numbers_are_written_in_the_unit_of_their_label():
    tpot = metric("tpot_s")
    assert tpot.label == "TPOT (ms)"
    assert tpot.text(0.0123456) == "12.346"
    assert tpot.text(0.0123456, with_unit=True) == "12.346 ms"
    assert metric("hit_rate").text(0.5) == "50.00"
    assert metric("misses").text(1234567) == "1,234,567"
    assert metric("misses").label == "misses"
    assert metric("ttft_s").text(None) == "-"


def test_direction():
    assert metric("hit_rate").is_better(0.5, 0.4)
    assert metric("misses").is_better(3, 4)
    assert not metric("misses").is_better(4, 4)
    assert not metric("accesses").is_better(1, 2)
    assert not metric("accesses").is_better(2, 1)
