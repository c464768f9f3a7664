"""What a run says of its requests and experts adds up to what it says of all of them."""

import numpy as np
import pytest

import specmd
from specmd.runs.details import FOLDER, read_details
from specmd.runs.run import read_run, write_run
from specmd.trace import synthetic

OPTIONS = {"capacity": 9, "profile": "t4", "bounds": False}


def trace(**changes):
    return synthetic(
        **{
            **{"num_layers": 3, "num_experts": 8, "top_k": 2, "num_requests": 4},
            **{"prompt_length": 3, "decode_length": 6, "expert_bytes": 10**6, "seed": 3},
            **changes,
        }
    )


@pytest.mark.parametrize("more", [{}, {"warmup": 2}, {"prefetch": "prev_token:depth=1"}])
@pytest.mark.parametrize("shape", [{}, {"batch": 2}, {"prompt_length": 0}])
def test_details_add_up(more, shape):
    run = specmd.simulate(trace(**shape), "lru", interpreted=True, **{**OPTIONS, **more})
    found, metrics = run.details, run.metrics
    assert found.asked.sum() == metrics["accesses"]
    assert found.missed.sum() == metrics["misses"]
    assert found.late.sum() == metrics["late_hits"]
    assert found.hits.sum() == metrics["hits"]
    assert found.prefetched.sum() == metrics["prefetch_issued"] - metrics["prefetch_cancelled"]
    layers = run.per_layer
    assert found.missed.sum(axis=1).tolist() == layers["misses"]
    timed = found.request_decode_steps > 0
    if shape.get("batch") is None:
        total = (found.request_tpot_s * found.request_decode_steps)[timed].sum()
        assert total / found.request_decode_steps.sum() == pytest.approx(metrics["tpot_s"])
    if metrics["ttft_s"] is not None:
        assert np.nanmean(found.request_ttft_s) == pytest.approx(metrics["ttft_s"])
    else:
        assert np.isnan(found.request_ttft_s).all()
    if not more.get("prefetch") and shape.get("batch") is None:
        assert found.request_accesses.sum() == metrics["accesses"]
        assert found.request_misses.sum() == metrics["misses"]
    elif not more.get("prefetch"):
        assert (found.request_misses == -1).all()


@pytest.mark.parametrize("prefetch", ["none", "prev_token:depth=1"])
def test_the_step_is_one_of_median_duration(prefetch):
    run = specmd.simulate(trace(), "lru", interpreted=True, **{**OPTIONS, "prefetch": prefetch})
    found = run.details
    # 24 decode steps, of which the median is one: nearest the p50 of TPOT from below.
    assert found.step_parts_s.shape[0] == 3
    assert found.step_parts_s.sum() <= run.metrics["tpot_p50_s"] * (1 + 1e-9)
    assert found.step_parts_s.sum() == pytest.approx(run.metrics["tpot_p50_s"], rel=0.2)


def test_details_lie_beside_the_run_and_are_not_missed(tmp_path):
    run = specmd.simulate(trace(), "lru", interpreted=True, **OPTIONS)
    path = write_run(run, tmp_path)
    again = read_run(path)
    assert again == run
    assert (again.details.missed == run.details.missed).all()
    np.testing.assert_allclose(again.details.request_tpot_s, run.details.request_tpot_s, rtol=1e-6)
    file = tmp_path / FOLDER / f"{run.id}.npz"
    file.write_bytes(file.read_bytes()[:100])
    assert read_details(tmp_path, run.id) is None
    assert read_run(path).details is None
    file.unlink()
    assert read_run(path).details is None
