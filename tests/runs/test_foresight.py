"""Recall and precision of predictions: by hand, of controls, and alike in every engine."""

from pathlib import Path

import numpy as np
import pytest

from specmd import simulate
from specmd.conformance.cases import small_trace, training_trace
from specmd.conformance.suite import SLOW_LINK
from specmd.policy.registry import Choice, entries
from specmd.runs.foresight import Foreseen, Foresight
from specmd.runs.options import RunConfig
from specmd.simulation.replay import replay
from specmd.trace import load, slice_steps
from specmd.trace.synthesis import with_scores

TRACES = Path(__file__).parents[2] / "traces"


def noted(*stretches):
    """Note stretches of events [(demanded, [(key, due)])], the first at clock 1."""
    foresight, clock = Foresight(10), 1
    for events in stretches:
        starts = np.cumsum([0] + [len(demanded) for demanded, _ in events])
        made = np.cumsum([0] + [len(proposed) for _, proposed in events])
        pairs = [pair for _, proposed in events for pair in proposed]
        keys = np.array([key for demanded, _ in events for key in demanded], np.uint32)
        proposed = np.array([key for key, _ in pairs], np.uint32)
        due = np.array([when for _, when in pairs], np.int64)
        foresight.add(clock, starts, keys, made, proposed, due)
        clock += len(events)
    return foresight.found


def test_a_case_by_hand():
    events = [
        ([0, 1], [(2, 2), (3, 2), (5, 3)]),
        ([2, 4], [(5, 3), (6, 3)]),  # of two proposed one is demanded, the other of U was not seen
        ([5, 6], [(9, 9)]),  # both were proposed, one of them twice; 9 is for nobody
    ]
    expected = Foreseen(demanded=6, proposed=4, both=3)
    assert noted(events) == expected
    assert noted(*([event] for event in events)) == expected  # whatever the stretches
    assert expected.metrics() == {"prediction_recall": 0.5, "prediction_precision": 0.75}


def test_what_is_due_in_the_past_is_no_prediction_and_what_is_due_now_is():
    assert noted([([0], []), ([1], [(0, 1), (1, 2)])]) == Foreseen(2, 1, 1)


def test_nothing_demanded_or_proposed_has_no_rate():
    assert Foreseen().metrics() == {"prediction_recall": None, "prediction_precision": None}


def rates(trace, prefetch, **options):
    run = simulate(
        trace, evict="lru", capacity="40%", prefetch=prefetch, bounds=False, interpreted=True,
        training=training_trace(trace), **options,
    )  # fmt: skip
    return run.metrics


def test_without_a_prefetcher_there_are_none():
    found = rates(small_trace(), "none")
    for name in ("prediction_recall", "prediction_precision", "prefetch_timeliness"):
        assert found[name] is None


def test_the_oracle_sees_all_but_the_first_event():
    trace = small_trace()
    found = rates(trace, "oracle:depth=1")
    first = len(np.unique(trace.expert_ids[: trace.step_starts[1], 0]))
    assert found["prediction_recall"] == 1 - first / found["accesses"]
    assert found["prediction_precision"] == 1.0
    assert rates(trace, "oracle:depth=1", warmup=1)["prediction_recall"] == 1.0


@pytest.mark.parametrize("schedule", ["fifo", "cancel", "guard"])
def test_the_own_gate_recalls_all_and_changes_nothing(schedule):
    trace = small_trace()
    found, plain = rates(trace, "own_gate", schedule=schedule), rates(trace, "none")
    assert found["prediction_recall"] == 1.0
    assert found["prediction_precision"] == 1.0
    assert found["prefetch_redundant"] == found["accesses"]
    assert found["prefetch_issued"] == 0
    assert found["misses"] == plain["misses"]


def test_the_own_gate_recalls_all_of_a_recording():
    trace = load(TRACES / "tiny-math-b1-full.npz")
    found = rates(trace, "own_gate")
    assert found["prediction_recall"] == 1.0
    assert found["prediction_precision"] > 0.98  # ties of rounded logits


@pytest.mark.parametrize("of", ["next_gate", "next_gate_renormalised", "prev_token", "ema"])
def test_what_is_shuffled_loses_to_what_is_not(of):
    trace = slice_steps(load(TRACES / "tiny-prose-b1.npz"), 0, 150)
    plain, mixed = (rates(trace, name) for name in (of, f"shuffled:of={of}"))
    random = rates(trace, "random")
    assert mixed["prediction_recall"] < 0.7 * plain["prediction_recall"]
    assert mixed["hit_rate"] < plain["hit_rate"]
    assert mixed["prediction_precision"] < 1.6 * random["prediction_precision"]


PREDICTORS = [
    entry
    for entry in entries("prefetch")
    if entry.origin == "built-in" and entry.name != "none" and "model" not in entry.needs
]


@pytest.mark.parametrize("name", [entry.name for entry in PREDICTORS])
def test_rates_depend_on_no_clock_cache_or_warm_plan(name):
    trace = with_scores(slice_steps(small_trace(), 0, 12))
    seen, other = set(), training_trace(trace)
    for slots, evict, costs in ((8, "lru", None), (20, "fifo", None), (8, "lru", SLOW_LINK)):
        config = RunConfig(
            evict=evict, prefetch=name, capacity=str(slots), capacity_slots=slots, warmup=2
        )
        outcome = replay(trace, config, training=other, costs=costs, interpreted=True)
        seen.add(outcome.foreseen)
    assert len(seen) == 1
    (found,) = seen
    assert 0 <= found.both <= min(found.demanded, found.proposed)
    steps = np.unique(trace.step[trace.step >= 2], return_index=True)[1].size
    assert found.demanded >= steps * trace.header.num_layers


def test_every_prefetcher_says_what_it_computes():
    computing = {e.name: Choice.usual(e).work for e in PREDICTORS if Choice.usual(e).work[0]}
    gates = {"next_gate", "next_gate_renormalised", "score_threshold", "cumulative"}
    assert gates | {"residual_gate", "shuffled"} == set(computing)
    assert set(computing.values()) == {(1, 0)}
