"""TTFT and TPOT on hand-made steps, where every number can be checked by eye."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specmd.runs.latency import latency
from specmd.runs.metrics import PARTS, PERCENTILES
from specmd.simulation.costs import CostCoefficients
from specmd.simulation.prefill import estimate_ttft, mean_ttft_estimate
from specmd.trace import DECODE, PREFILL, build_trace, synthetic

PART_NAMES = list(PARTS)


def made(tokens, prompt_lengths=None):
    """A trace of tokens (step, request, phase), one layer, one of four experts."""
    step, request, phase = zip(*tokens, strict=True)
    return build_trace(
        np.zeros((len(tokens), 1, 1), int),
        num_experts=4,
        step=step,
        request=request,
        phase=phase,
        prompt_lengths=prompt_lengths,
        header={"expert_bytes": 10},
    )


def seconds(*steps):
    """One row a step; a number is compute alone."""
    rows = [step if isinstance(step, tuple) else (step, 0, 0, 0, 0, 0) for step in steps]
    return np.array(rows, float)


# Request 0 prefills in two chunks (steps 0 and 2); request 1 prefills in between (step 1).
CHUNKED = [
    (0, 0, PREFILL),
    (0, 0, PREFILL),
    (1, 1, PREFILL),
    (2, 0, PREFILL),
    (3, 0, DECODE),
    (3, 1, DECODE),
    (4, 0, DECODE),
]


def test_chunked_prefill_counts_the_steps_in_between():
    found = latency(made(CHUNKED), seconds(1, 10, 100, 5, 7), 0, None).metrics
    assert found["ttft_s"] == (111 + 10) / 2
    assert found["ttft_p50_s"] == (111 + 10) / 2
    assert found["ttft_p90_s"] == pytest.approx(10 + 0.9 * 101)
    assert found["tpot_s"] == 6
    assert found["total_s"] == 123
    assert found["tokens_per_s"] == 5 / 123  # three decoded, two by the prefills


def test_a_decode_step_that_carries_a_prefill_chunk_is_both():
    mixed = [(0, 0, PREFILL), (1, 0, DECODE), (1, 1, PREFILL), (2, 1, DECODE)]
    found = latency(made(mixed), seconds(1, 10, 4), 0, None).metrics
    assert found["ttft_s"] == (1 + 10) / 2
    assert found["tpot_s"] == (10 + 4) / 2


def test_parts_and_stall_share():
    steps = seconds((1, 2, 3, 4, 5, 6), (10, 20, 30, 40, 50, 60))
    trace = made([(0, 0, PREFILL), (1, 0, DECODE)])
    found = latency(trace, steps, 0, 75.0, 33.0).metrics
    assert [found[f"ttft_{part}_s"] for part in PART_NAMES] == [1, 2, 3, 4, 5, 6]
    assert [found[f"tpot_{part}_s"] for part in PART_NAMES] == [10, 20, 30, 40, 50, 60]
    assert [found[f"total_{part}_s"] for part in PART_NAMES] == [11, 22, 33, 44, 55, 66]
    assert list(PARTS)[1:4] == ["disk_stall", "demand_stall", "late_prefetch_stall"]
    assert found["stall_share"] == (22 + 33 + 44) / 231
    assert found["link_busy_share"] == 75 / 231
    assert found["disk_busy_share"] == 33 / 231


@given(
    st.lists(st.lists(st.floats(0, 10), min_size=6, max_size=6), min_size=1, max_size=30),
    st.integers(0, 3),
)
def test_parts_add_up_to_their_totals(rows, prefills):
    prefills = min(prefills, len(rows))
    tokens = [(i, 0, PREFILL if i < prefills else DECODE) for i in range(len(rows))]
    found = latency(made(tokens), np.array(rows), 0, None).metrics
    for short in ("ttft", "tpot", "total"):
        if found[f"{short}_s"] is not None:
            parts = sum(found[f"{short}_{part}_s"] for part in PART_NAMES)
            assert parts == pytest.approx(found[f"{short}_s"], rel=1e-9, abs=1e-9)
    assert (found["ttft_s"] is None) == (prefills == 0)
    assert (found["tpot_s"] is None) == (prefills == len(rows))


def test_a_request_whose_prefill_began_in_the_warm_up_is_left_out():
    found = latency(made(CHUNKED), seconds(10, 100, 5, 7), 1, None)
    assert found.metrics["ttft_s"] == 10
    assert found.metrics["tokens_per_s"] == 4 / 122
    assert any("1 of 2 requests have no whole prefill" in text for text in found.warnings)


def test_without_prefill_ttft_is_none_and_says_so():
    found = latency(made([(0, 0, DECODE), (1, 0, DECODE)]), seconds(1, 3), 0, None)
    assert found.metrics["ttft_s"] is None
    assert found.metrics["ttft_p99_s"] is None
    assert found.metrics["ttft_compute_s"] is None
    assert found.metrics["tpot_s"] == 2
    assert found.warnings == ["no prefill is recorded and counted: TTFT is null, not a guess"]


def test_without_decode_tpot_is_none_and_says_so():
    found = latency(made([(0, 0, PREFILL)]), seconds(1), 0, None)
    assert found.metrics["tpot_s"] is None
    assert any("TPOT is null" in text for text in found.warnings)


def test_a_prefill_shorter_than_its_prompt_is_not_a_whole_one():
    found = latency(made(CHUNKED, [4, 1]), seconds(1, 10, 100, 5, 7), 0, None)
    assert found.metrics["ttft_s"] == 10
    assert (
        latency(made(CHUNKED, [3, -1]), seconds(1, 10, 100, 5, 7), 0, None).metrics["ttft_s"]
        == (111 + 10) / 2
    )


def test_a_cut_trace_that_ends_in_a_prefill_does_not_count_it():
    tokens = [(0, 0, PREFILL), (1, 1, PREFILL)]
    assert latency(made(tokens), seconds(1, 3), 0, None, unfinished=1).metrics["ttft_s"] == 1
    assert latency(made(tokens), seconds(1, 3), 0, None).metrics["ttft_s"] == 2


def test_percentiles_interpolate():
    steps = np.arange(1, 102, dtype=float)
    trace = made([(i, 0, DECODE) for i in range(101)])
    found = latency(trace, seconds(*steps), 0, None).metrics
    assert [found[f"tpot_p{p}_s"] for p in PERCENTILES] == [51, 91, 100]


def costs(**changed):
    """No cost at all but the named ones."""
    zero = dict.fromkeys(CostCoefficients._fields, 0.0) | {
        "bytes_per_s": 1.0, "chunk_bytes": 1.0, "prefill_flop_scale": 1.0, "prefill_read_scale": 1.0
    }  # fmt: skip
    return CostCoefficients(**(zero | changed))


def test_the_estimate_by_hand():
    header = synthetic(
        num_layers=3, num_experts=4, top_k=4, decode_length=1, expert_bytes=100
    ).header
    # All 4 experts of each of 3 layers cross the link: 4 * (0.5 + 100 / 50) s a layer.
    linked = costs(latency_s=0.5, bytes_per_s=50.0)
    assert estimate_ttft(header, linked, 7) == pytest.approx(3 * 4 * 2.5)
    # Compute hides behind the transfers, or the other way round; the dense part is added.
    slow = linked._replace(expert_flop_s=1.0, layer_read_s=2.0, head_read_s=9.0)
    assert estimate_ttft(header, slow, 7) == pytest.approx(3 * (2 + 4 * 7) + 9)
    assert estimate_ttft(header, slow, 0) == 0


def test_the_estimate_grows_with_the_prompt_and_is_bounded_by_all_experts():
    header = synthetic(
        num_layers=2, num_experts=16, top_k=2, decode_length=1, expert_bytes=10
    ).header
    linked = costs(bytes_per_s=1.0)
    times = [estimate_ttft(header, linked, n) for n in (1, 2, 8, 64, 4096)]
    assert times == sorted(times)
    assert times[0] == pytest.approx(2 * 2 * 10)
    assert times[-1] == pytest.approx(2 * 16 * 10)


def test_the_mean_estimate_is_over_requests_without_recorded_prefill_only():
    linked = costs(bytes_per_s=1.0)
    recorded = made(CHUNKED, [3, 1])
    assert mean_ttft_estimate(recorded, linked) is None
    assert mean_ttft_estimate(made(CHUNKED), linked) is None
    decode = [(0, 0, DECODE), (1, 1, DECODE), (2, 2, DECODE)]
    assert mean_ttft_estimate(made(decode, [0, 0, -1]), linked) is None
    trace = made([*decode, (3, 3, DECODE)], [1, 2, -1, 0])
    each = [estimate_ttft(trace.header, linked, n) for n in (1, 2)]
    assert mean_ttft_estimate(trace, linked) == pytest.approx(sum(each) / 2)
