"""Measured runs with a disk behind the host: played from a file, recorded, predicted."""

from pathlib import Path

import numpy as np
import pytest
from small_shapes import EXPERTS, LAYERS, mixed, offload, small_shape
from test_prediction import EXPERT_BYTES, made_up

from specmd.calibration.disk import fit_disk, measure_disk, with_disk
from specmd.errors import SpecmdError
from specmd.hardware.engines import load_engine
from specmd.hardware.profile import load_profile, read_profile
from specmd.hardware.toml import profile_text
from specmd.measurement.measuring import measure
from specmd.measurement.prediction import pace, predict
from specmd.measurement.settings import LiveSettings
from specmd.measurement.trace_workload import TraceWorkload
from specmd.measurement.workload import FollowedTrace
from specmd.runs.counters import tally, tally_host
from specmd.runs.latency import latency
from specmd.runs.metrics import PARTS
from specmd.runs.resolve import grid
from specmd.simulation.costs import coefficients
from specmd.simulation.replay import replay
from specmd.trace import synthetic


@pytest.fixture(scope="module")
def played():
    return TraceWorkload(mixed(), small_shape("olmoe"), tokens=12, dtype="float32")


def test_a_trace_is_played_from_a_file_that_goes_when_it_is_over(played, tmp_path):
    file = played.file(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    asked = {"capacity": "30%", "host_capacity": "60%", "host_evict": "lfu"}
    with offload(
        played.model, store=file, routing=played.routing, deterministic=True, interpreted=True,
        **asked,
    ) as cache:  # fmt: skip
        played.play()
        digest, counters = cache.host_digest, cache.host_counters
    assert not list(tmp_path.iterdir())
    (config,) = grid(played.trace, **asked)
    outcome = replay(played.trace, config, interpreted=True)
    assert outcome.host_digest == digest
    assert (outcome.host_counters == counters).all()
    with pytest.raises(SpecmdError, match="cannot be written there"):
        played.file(tmp_path / "nowhere")


def test_a_measured_run_says_what_the_host_had_and_what_was_read(played, tmp_path):
    workload = FollowedTrace(played, "mixed", {})
    (config,) = grid(played.trace, capacity="30%", host_capacity="60%")
    settings = LiveSettings(
        link="cpu", deterministic=True, scratch=str(tmp_path), warmup_runs=0, repetitions=1
    )
    found = measure(workload, config, settings, bounds=False)
    run = found.run
    size = played.trace.header.expert_bytes
    assert run.metrics["host_hits"] + run.metrics["host_misses"] == run.metrics["misses"]
    assert run.metrics["bytes_disk"] == run.metrics["host_misses"] * size
    assert run.measurement.read_bytes >= run.metrics["bytes_disk"]
    assert run.measurement.disk in ("O_DIRECT", "fadvise")
    assert run.contract["host_slots"] == config.host_slots == int(0.6 * LAYERS * EXPERTS)
    assert run.contract["host_evict"] == "lru"
    parts = sum(run.metrics[f"total_{part}_s"] for part in PARTS)
    assert parts == pytest.approx(run.metrics["total_s"])
    profile = with_disk(load_profile("t4"), fit_disk([(10, 1.0), (20, 1.5)], "O_DIRECT"))
    assert predict(run, found.trace, profile).same_decisions is True
    other = run.model_copy(update={"host_digest": "0"})
    assert predict(other, found.trace, profile).same_decisions is False


def test_a_run_that_is_the_simulation_is_predicted_exactly():
    trace = synthetic(prompt_length=8, decode_length=12, expert_bytes=EXPERT_BYTES, seed=5)
    profile = load_profile("rtx4090")
    run = made_up(trace)
    slots = {"host_capacity": "40", "host_slots": 40}
    run = run.model_copy(update={"config": run.config.model_copy(update=slots)})
    paced = pace(profile, run.measurement.throttle, run.measurement.chunk_bytes, EXPERT_BYTES)
    costs = coefficients(paced, None, EXPERT_BYTES, load_engine("eager"))
    outcome = replay(trace, run.config, costs=costs)
    metrics = tally(outcome.counters.sum(axis=0), trace.header.layer_bytes, trace.num_tokens)
    metrics |= tally_host(outcome.host_counters.sum(axis=0), trace.header.layer_bytes)
    metrics |= latency(trace, outcome.step_seconds, 0, None).metrics
    found = predict(run.model_copy(update={"metrics": metrics}), trace, profile)
    assert found.error("tpot_s") == pytest.approx(0, abs=1e-12)
    assert found.difference("host_hit_rate") == 0
    assert found.record()["host_slots"] == 40
    assert found.record()["tpot_disk_stall_s_predicted"] > 0
    without = predict(run, trace, load_profile("t4"))
    assert "knows no disk" in without.reason


def test_the_figures_of_a_disk_are_fitted_and_kept_in_a_profile(tmp_path: Path):
    times = [(n, 2e-4 + n / 1e9) for n in (1_000_000, 4_000_000, 16_000_000)]
    figures = fit_disk(times, "O_DIRECT")
    assert figures.bytes_per_s == pytest.approx(1e9)
    assert figures.latency_s == pytest.approx(2e-4)
    assert figures.misfit < 1e-6
    profile = with_disk(load_profile("t4"), figures)
    path = tmp_path / "here.toml"
    path.write_text(profile_text(profile), encoding="utf-8")
    ssd = read_profile(path).ssd
    assert ssd.bytes_per_s.value == pytest.approx(1e9)
    assert "O_DIRECT" in ssd.latency_s.source


def test_a_disk_is_measured_by_the_files_that_lie_there(tmp_path: Path):
    with pytest.raises(SpecmdError, match="no such folder"):
        measure_disk(tmp_path / "nowhere", 1000, 4096)
    (tmp_path / "small").write_bytes(bytes(999))
    with pytest.raises(SpecmdError, match="as large as an expert"):
        measure_disk(tmp_path, 1000, 4096)
    chance = np.random.default_rng(0)
    (tmp_path / "large").write_bytes(chance.integers(0, 256, 1 << 20, dtype=np.uint8).tobytes())
    found = measure_disk(tmp_path, 100_000, 32_768)
    assert [n for n, _ in found.times] == [25_000, 100_000, 400_000]
    assert found.bytes_per_s > 0
    assert found.latency_s >= 0
