"""Experts computed on the host: decided, counted and timed by hand."""

from pathlib import Path

import pytest

import specmd
from specmd.core.state import HOST_EXPERTS
from specmd.errors import SpecmdError
from specmd.runs.metrics import PART_COLUMN
from specmd.runs.options import RunConfig
from specmd.simulation.costs import CostCoefficients
from specmd.simulation.replay import replay
from specmd.trace import DECODE, PREFILL, build_trace, load, synthetic

MB = 10**6


@pytest.fixture
def trace():
    """One layer: a prompt of two tokens brings 0 and 1, then five decode steps."""
    return build_trace(
        [[[0, 1]], [[0, 1]], [[0, 2]], [[0, 2]], [[1, 3]], [[0, 1]], [[2, 3]]],
        num_experts=4,
        step=[0, 0, 1, 2, 3, 4, 5],
        phase=[PREFILL] * 2 + [DECODE] * 5,
        header={"expert_bytes": MB},
    )


def run(trace, **options):
    return specmd.simulate(trace, capacity="2", interpreted=True, **options)


def test_decode_misses_stay_on_the_host_and_move_nothing(trace):
    found = run(trace, miss="host").metrics
    # The prompt's two are fetched, each chosen by two tokens. Then 2, 2, 3, 2, 3 are computed.
    assert found["misses"] == 7
    assert found["host_experts"] == 5
    assert found["evictions"] == found["bypassed"] == 0
    assert found["bytes_demand"] == 2 * MB
    assert found["bytes_per_token"] == 2 * MB / 7
    assert found["hits"] == 5
    fetched = run(trace).metrics
    assert fetched["host_experts"] == 0
    assert fetched["evictions"] > 0


def test_more_tokens_than_asked_for_are_fetched(trace):
    found = run(trace, miss="host:tokens=2").metrics
    assert found["host_experts"] == found["misses"] == 12
    assert found["hits"] == 0
    with pytest.raises(SpecmdError, match="greater than or equal to 1"):
        run(trace, miss="host:tokens=0")


def test_a_hot_set_and_the_host_are_fiddler():
    names = ("tiny-prose-b1", "tiny-math-b1")
    made, other = (load(Path(__file__).parents[2] / "traces" / f"{name}.npz") for name in names)
    found = specmd.simulate(
        made, evict="static", miss="host:tokens=100", capacity="25%", training=other, bounds=False
    ).metrics
    assert found["host_experts"] == found["misses"] > 0
    assert found["bytes_demand"] == 0


def clock(**figures):
    none = dict.fromkeys(CostCoefficients._fields, 0.0) | {
        "bytes_per_s": float(MB), "chunk_bytes": float(MB),
        "prefill_flop_scale": 1.0, "prefill_read_scale": 1.0,
    }  # fmt: skip
    return CostCoefficients(**none | figures)


def seconds(trace, miss, costs):
    config = RunConfig(capacity="2", capacity_slots=2, miss=miss)
    return replay(trace, config, costs=costs, interpreted=True).step_seconds


def test_the_host_computes_beside_the_device_one_after_the_other(trace):
    # The device takes 1 s an expert, the host 3 s and 0.5 s a token of activations.
    costs = clock(
        read_s_per_byte=1 / MB, host_read_s_per_byte=3 / MB, host_token_s=0.5, layer_read_s=0.25
    )
    found = seconds(trace, "host", costs)
    # Prompt: dense 0.25; two experts come (1 s each), the second while the first computes.
    assert found[0].sum() == pytest.approx(0.25 + 2.0 + 1.0)
    # 0 hits (1 s), 2 on the host until 3.5: the rest of it is waited for.
    assert found[1].tolist() == pytest.approx([0.25 + 1.0, 0.0, 0.0, 0.0, 2.5, 0.0])
    # 1 hits, 3 on the host; then two hits; then two on the host, one after the other.
    assert found[3].sum() == pytest.approx(0.25 + 3.5)
    assert found[4].sum() == pytest.approx(0.25 + 2.0)
    assert found[5].sum() == pytest.approx(0.25 + 7.0)
    assert found[:, PART_COLUMN["cpu_expert"]].sum() == pytest.approx(2.5 + 2.5 + 2.5 + 7.0)


def test_arithmetic_bounds_the_host_where_tokens_are_many(trace):
    costs = clock(host_read_s_per_byte=3 / MB, host_flop_s=2.0)
    found = seconds(trace, "host:tokens=2", costs)
    assert found[0].sum() == pytest.approx(2 * 2 * 2.0)
    assert found[5].sum() == pytest.approx(2 * 3.0)


def test_no_roofline_is_claimed_for_what_does_not_move():
    made = synthetic(
        num_layers=4, num_experts=8, top_k=2, decode_length=20, expert_bytes=50 * MB, seed=2
    )
    host = specmd.simulate(made, miss="host", capacity="25%", profile="rtx3090")
    assert host.metrics["over_roofline"] is None
    assert host.metrics["tpot_cpu_expert_s"] > 0
    moved = specmd.simulate(made, capacity="25%", profile="rtx3090")
    assert moved.metrics["over_roofline"] >= 1
    assert host.bounds.roofline_s == moved.bounds.roofline_s
    # 50 MB take 1.9 ms over PCIe, less out of host memory.
    assert host.metrics["tpot_s"] < host.bounds.no_cache.tpot_s


def test_compiled_and_interpreted_agree_and_the_digest_tells_them_apart(trace):
    config = RunConfig(capacity="2", capacity_slots=2, miss="host")
    slow, quick = (
        replay(trace, config, interpreted=plain, compiled=not plain) for plain in (True, False)
    )
    assert slow.decision_digest == quick.decision_digest
    assert (slow.counters == quick.counters).all()
    assert slow.counters[..., HOST_EXPERTS].sum() == 5
    fetching = replay(trace, config.model_copy(update={"miss": "overlap"}), interpreted=True)
    assert fetching.decision_digest != slow.decision_digest
