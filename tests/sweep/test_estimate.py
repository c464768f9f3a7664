"""An estimate says where it comes from, and is the sum of what it says."""

import re

import pytest

from specmd.runs.resolve import make_grid
from specmd.runs.run import read_run, write_run
from specmd.sweep import estimate as module
from specmd.sweep.estimate import estimate
from specmd.sweep.jobs import MADE_IN_S
from specmd.sweep.sweep import plan, sweep
from specmd.trace import load, save, synthetic


@pytest.fixture
def trace(tmp_path):
    made = synthetic(num_layers=2, num_experts=5, top_k=2, num_requests=2, decode_length=30)
    return save(made, tmp_path / "t.npz")


GRID = make_grid({"evict": ["lru", "fifo"], "capacity": [4, 6]})


def asked(trace, out=None, *, bounds=False, workers=1):
    jobs = plan([trace], GRID, bounds=bounds)
    return estimate(jobs, out, training=None, bounds=bounds, workers=workers)


def test_few_accesses_are_not_worth_a_probe(trace):
    found = asked(trace)
    assert found.seconds is None
    assert found.basis == f"{4 * load(trace).expert_ids.size:,} accesses"


@pytest.mark.parametrize("bounds", [False, True])
def test_a_probe_is_scaled_to_all_accesses(trace, monkeypatch, bounds):
    monkeypatch.setattr(module, "PROBED_ACCESSES", 100)
    found = asked(trace, bounds=bounds)
    rates = [float(text) * 1e-9 for text in re.findall(r"([0-9.e+]+) ns", found.basis)]
    size = load(trace).expert_ids.size
    expected = rates[0] * 4 * size + (rates[1] * size if bounds else 0)
    assert found.seconds == pytest.approx(expected, rel=0.02)
    assert ("for the bounds of each of 1 cells" in found.basis) == bounds


def test_runs_that_are_there_are_the_better_source(trace, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PROBED_ACCESSES", 100)
    out = tmp_path / "out"
    sweep([trace], GRID, out, bounds=False, workers=1)
    first, *rest = plan([trace], GRID, bounds=False)
    for job in rest:
        (out / f"{job.run_id}.json").unlink()
    run = read_run(out / f"{first.run_id}.json")
    assert run.provenance[MADE_IN_S] > 0
    write_run(run.model_copy(update={"provenance": run.provenance | {MADE_IN_S: 2.0}}), out)
    assert asked(trace, out).seconds == pytest.approx(3 * 2.0)
    assert asked(trace, out, workers=3).seconds == pytest.approx(2.0)
    assert asked(trace, out, workers=64).seconds == pytest.approx(2.0), "no more than runs"
    assert "in 1 runs that are there" in asked(trace, out).basis
