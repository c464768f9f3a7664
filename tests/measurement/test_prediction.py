"""Predictions: exact where the measured run is itself a simulation, and their statistics."""

import pytest

from specmd.errors import SpecmdError
from specmd.hardware.engines import load_engine
from specmd.hardware.profile import load_profile
from specmd.measurement.prediction import agreement, pace, predict, read_measured
from specmd.runs.contract import trace_facts
from specmd.runs.counters import tally
from specmd.runs.latency import latency
from specmd.runs.options import RunConfig
from specmd.runs.run import Measurement, Run, write_run
from specmd.simulation.costs import coefficients
from specmd.simulation.replay import replay
from specmd.trace import save, synthetic

EXPERT_BYTES = 1_000_000


@pytest.fixture(scope="module")
def trace():
    return synthetic(
        num_requests=2, prompt_length=8, decode_length=12, expert_bytes=EXPERT_BYTES, seed=5
    )


def measurement(**changed):
    fields = {
        "device": "a device", "link": "cpu", "chunk_bytes": 1 << 20, "compute_threads": 1,
        "warmup_runs": 0, "repetitions": 1, "moved_bytes": 0, "store_bytes": 1,
        "pinned_share": 0.0, "slot_bytes": 1, "dense_bytes": 1,
        "throttle_bytes_per_s": 1e9, "throttle_latency_s": 1e-4,
    }  # fmt: skip
    return Measurement(**(fields | changed))


def made_up(trace, slots=100, slower=1.0, **changed):
    """A "measured" run that took what a paced T4 takes, times `slower`."""
    config = RunConfig(evict="lru", capacity=str(slots), capacity_slots=slots)
    about = measurement(**changed)
    paced = pace(load_profile("t4"), about.throttle, about.chunk_bytes, EXPERT_BYTES)
    costs = coefficients(paced, None, EXPERT_BYTES, load_engine("eager"))
    outcome = replay(trace, config, costs=costs)
    metrics = tally(outcome.counters.sum(axis=0), trace.header.layer_bytes, trace.num_tokens)
    metrics |= latency(trace, outcome.step_seconds * slower, 0, None).metrics
    return Run(
        id=f"{slots:016x}", source="measured", config=config, metrics=metrics,
        trace=trace_facts(trace, trace, "made up", 0), measurement=about,
        decision_digest=replay(trace, config).decision_digest,
    )  # fmt: skip


def test_a_run_that_is_the_simulation_is_predicted_exactly(trace):
    found = predict(made_up(trace), trace, load_profile("t4"))
    assert found.error("ttft_s") == pytest.approx(0, abs=1e-12)
    assert found.error("tpot_s") == pytest.approx(0, abs=1e-12)
    assert found.difference("hit_rate") == 0
    assert found.record()["tpot_s_predicted"] == found.predicted["tpot_s"]


def test_errors_are_relative_to_what_was_measured(trace):
    found = predict(made_up(trace, slower=2.0), trace, load_profile("t4"))
    assert found.error("tpot_s") == pytest.approx(-0.5)


def test_agreement_is_the_median_and_the_ranks(trace):
    runs = [made_up(trace, slots, slower) for slots, slower in ((50, 1.0), (100, 1.25), (400, 0.5))]
    found = agreement([predict(run, trace, load_profile("t4")) for run in runs], "tpot_s")
    assert (found.runs, found.rank_correlation) == (3, pytest.approx(1.0))
    assert found.median_error == pytest.approx(0.2)
    assert found.largest_error == pytest.approx(1.0)
    assert agreement([], "tpot_s") is None


def test_ranks_may_be_reversed(trace):
    runs = [made_up(trace, slots, slower) for slots, slower in ((50, 0.01), (100, 1), (400, 99))]
    found = agreement([predict(run, trace, load_profile("t4")) for run in runs], "tpot_s")
    assert found.rank_correlation == pytest.approx(-1.0)


def test_a_deterministic_run_is_compared_by_its_decisions(trace):
    run = made_up(trace, deterministic=True)
    found = predict(run, trace, load_profile("t4"))
    assert found.same_decisions is True
    assert found.predicted == {}
    other = run.model_copy(update={"decision_digest": "0" * 16})
    assert predict(other, trace, load_profile("t4")).same_decisions is False


def test_what_is_not_simulated_says_so(trace):
    found = predict(made_up(trace, prefill="bypass"), trace, load_profile("t4"))
    assert "not simulated" in found.reason
    assert found.error("tpot_s") is None


def test_the_slower_of_throttle_and_link_sets_the_pace():
    profile = load_profile("t4")
    own = profile.host_link.bytes_per_s.value
    slow = pace(profile, (1e9, 1e-4), 1 << 20, EXPERT_BYTES).host_link
    fast = pace(profile, (1e12, 0.0), 1 << 20, 10**8)
    assert (slow.bytes_per_s.value, slow.latency_s.value) == (1e9, 1e-4)
    assert fast.host_link.bytes_per_s.value == own
    assert fast.host_link.chunk_bytes.value == 1 << 20


def test_runs_are_read_with_their_traces(trace, tmp_path):
    run = made_up(trace)
    write_run(run, tmp_path)
    with pytest.raises(SpecmdError, match="not beside it"):
        read_measured([tmp_path])
    save(trace, tmp_path / f"{run.id}.npz")
    ((read, loaded),) = read_measured([tmp_path / f"{run.id}.json"])
    assert read == run
    assert loaded.digest == trace.digest


def test_simulated_runs_and_empty_folders_are_refused(trace, tmp_path):
    with pytest.raises(SpecmdError, match="no measured run"):
        read_measured([tmp_path])
    write_run(made_up(trace).model_copy(update={"source": "simulated"}), tmp_path)
    with pytest.raises(SpecmdError, match="a simulated run"):
        read_measured([tmp_path])
