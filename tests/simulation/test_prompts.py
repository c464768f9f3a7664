"""Prompts: time to first token in chunks and batches, wider than the cache, warm and reset."""

from pathlib import Path

import numpy as np
import pytest

from specmd import simulate
from specmd.errors import SpecmdError
from specmd.runs.latency import latency
from specmd.runs.metrics import PARTS
from specmd.runs.options import RunConfig
from specmd.simulation.costs import CostCoefficients
from specmd.simulation.events import EventStream
from specmd.simulation.replay import replay
from specmd.simulation.simulate import prepared
from specmd.trace import (
    DECODE,
    PREFILL,
    build_trace,
    compose,
    concatenate,
    import_trace,
    interleave,
    synthetic,
)

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "traces"

# An expert computes for 1 s and crosses the link in 2 s; nothing else takes time.
CLOCK = CostCoefficients(
    **dict.fromkeys(CostCoefficients._fields, 0.0)
    | CostCoefficients._field_defaults
    | {"read_s_per_byte": 1.0, "bytes_per_s": 0.5, "chunk_bytes": 1.0}
)


def prompted(prompts, decodes):
    """Requests of one layer of four experts, top-1: each a prompt, then decoded tokens."""
    ids, request, phase, step, steps = [], [], [], [], 0
    for number, (prompt, decoded) in enumerate(zip(prompts, decodes, strict=True)):
        ids += prompt + decoded
        request += [number] * (len(prompt) + len(decoded))
        phase += [PREFILL] * len(prompt) + [DECODE] * len(decoded)
        step += [steps] * len(prompt) + list(range(steps + 1, steps + 1 + len(decoded)))
        steps += 1 + len(decoded)
    return build_trace(
        np.array(ids)[:, None, None],
        num_experts=4,
        step=step,
        request=request,
        phase=np.array(phase),
        header={"expert_bytes": 1},
    )


def timed(trace, slots, **options):
    """Metrics of the time, and misses, of one configuration."""
    config = RunConfig(capacity=str(slots), capacity_slots=slots, **options)
    made = prepared(trace, config)
    outcome = replay(made, config, costs=CLOCK)
    found = latency(made, outcome.step_seconds, outcome.first_step, None).metrics
    return found, outcome


def step_seconds(trace, slots, **options):
    return timed(trace, slots, **options)[1].step_seconds.sum(axis=1).tolist()


FOUR = prompted([[0, 1, 2, 3]], [[0]])


def test_a_prompt_at_once_streams_each_expert_once():
    # Arrivals at 2, 4, 6, 8 s; each expert computes while the next one is on its way.
    found, _ = timed(FOUR, 4)
    assert (found["ttft_s"], found["tpot_s"]) == (9, 1)
    assert (found["ttft_compute_s"], found["ttft_demand_stall_s"]) == (4, 5)


@pytest.mark.parametrize(
    ("chunk", "steps"),
    [(1, [3, 3, 3, 3, 1]), (2, [5, 5, 1]), (3, [7, 3, 1]), (4, [9, 1]), (99, [9, 1])],
)
def test_each_chunk_waits_for_its_first_expert_anew(chunk, steps):
    assert step_seconds(FOUR, 4, prefill_chunk=chunk) == steps
    found, _ = timed(FOUR, 4, prefill_chunk=chunk)
    assert found["ttft_s"] == sum(steps[:-1])
    assert found["ttft_compute_s"] == 4


def test_a_prompt_wider_than_the_cache_leaves_its_best_ranked():
    # Equal ranks: the larger keys have left, and the decoded token finds 0.
    assert step_seconds(FOUR, 2) == [9, 1]
    # In chunks, the second has evicted what the first brought, and 0 is fetched again.
    assert step_seconds(FOUR, 2, prefill_chunk=2) == [5, 5, 3]
    # A prompt that comes back to its experts fetches them anew in each chunk: 2, 3 and 4 of them.
    cyclic = prompted([[0, 1, 0, 1]], [[1]])
    assert step_seconds(cyclic, 1) == [5, 3]
    assert step_seconds(cyclic, 1, prefill_chunk=2) == [5, 3, 3]
    assert step_seconds(cyclic, 1, prefill_chunk=1) == [3, 3, 3, 3, 1]


TWO = prompted([[0], [0, 1]], [[0, 0, 0], [2, 2]])


def test_others_wait_for_a_prompt_that_runs_alone():
    # {0} and {0, 1} of the prompts, then {0, 2} twice, and what is left of request 0. What is
    # there computes while what is not arrives.
    assert step_seconds(TWO, 4, batch=2) == [3, 3, 3, 2, 1]
    found, _ = timed(TWO, 4, batch=2)
    assert found["ttft_s"] == 3
    assert found["tpot_s"] == (3 + 2 + 1) / 3


def test_a_mixed_prompt_rides_with_the_decodes():
    # {0}; {0, 1} of the other prompt beside the decoded 0; {0, 2} twice.
    assert step_seconds(TWO, 4, batch=2, mixed=True) == [3, 3, 3, 2]
    found, _ = timed(TWO, 4, batch=2, mixed=True)
    assert found["ttft_s"] == 3
    assert found["tpot_s"] == (3 + 3 + 2) / 3  # request 0 waits for request 1's prompt


def test_ttft_of_several_requests_cold_and_warm():
    three = prompted([[0, 1], [0, 1], [0, 2]], [[0], [1], [2]])
    cold, _ = timed(three, 4)
    assert step_seconds(three, 4) == [5, 1, 2, 1, 3, 1]
    assert cold["ttft_s"] == pytest.approx((5 + 2 + 3) / 3)
    warm, outcome = timed(three, 4, warmup=2)
    assert outcome.first_step == 2
    assert warm["ttft_s"] == (2 + 3) / 2
    assert step_seconds(three, 4, reset="request") == [5, 1, 5, 1, 5, 1]


def test_reset_waits_until_no_request_is_in_flight():
    trace = prompted([[0], [1], [2], [3]], [[0], [1], [2], [3]])
    assert EventStream(trace).resets() == {2, 4, 6}
    together = interleave(trace, 2)
    assert together.phase.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert EventStream(together).resets() == {3}
    unequal = interleave(prompted([[0], [1], [2]], [[0, 0], [1], [2]]), 2)
    assert EventStream(unequal).resets() == set()
    assert timed(trace, 4, batch=2, reset="request")[1].counters.sum() > 0


def test_a_request_cut_in_its_prompt_has_no_ttft_wherever_it_ends_up():
    trace = prompted([[0, 1], [2, 3], [0, 1]], [[0, 0, 0], [2], [1]])
    cut = {"tokens": 7, "profile": "h100_sxm"}
    alone = simulate(trace, "lru", 4, **cut)
    assert any("1 of 2 requests have no whole prefill" in text for text in alone.warnings)
    batched = simulate(trace, "lru", 4, batch=2, **cut)
    assert any("1 of 2 requests have no whole prefill" in text for text in batched.warnings)
    assert batched.metrics["ttft_s"] == pytest.approx(alone.metrics["ttft_s"])


def test_a_run_says_what_was_made_of_its_trace():
    trace = synthetic(prompt_length=6, num_requests=4, decode_length=3, expert_bytes=1000)
    plain = simulate(trace, "lru", 30)
    made = simulate(trace, "lru", 30, prefill_chunk=2, batch=4, mixed=True)
    assert made.trace.digest == plain.trace.digest
    assert made.id != plain.id
    assert made.trace.steps != plain.trace.steps
    assert (made.contract["batch"], made.contract["prefill_chunk"]) == (4, 2)
    whole = compose(trace, prefill_chunk=2, batch=4, mixed=True)
    assert made.decision_digest == simulate(whole, "lru", 30).decision_digest
    same = simulate(trace, "lru", 30, prefill_chunk=6, batch=1)
    assert same.decision_digest == plain.decision_digest
    assert same.metrics == plain.metrics


def test_fewer_in_flight_than_asked_for_is_said():
    trace = prompted([[0]] * 3, [[0] * 9, [1], [2]])
    run = simulate(trace, "lru", 4, batch=3)
    assert any("1.2 of 3 requests are in flight" in text for text in run.warnings)
    with pytest.raises(SpecmdError, match="batch 4: the trace has 3 requests"):
        simulate(trace, "lru", 4, batch=4)


def shared(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not here: traces of others are not part of the repository")
    return path


def distinct(trace):
    """Accesses of a trace, counted plainly: by step and layer the experts of its tokens."""
    rows, layers, _ = np.nonzero(trace.expert_ids < trace.header.num_experts)
    ids = trace.expert_ids[trace.expert_ids < trace.header.num_experts]
    return len(set(zip(trace.step[rows].tolist(), layers.tolist(), ids.tolist(), strict=True)))


@pytest.mark.parametrize("name", ["qwen3_30b_a3b", "gptoss_120b"])
def test_recorded_prompts_in_chunks(name):
    trace = import_trace(shared(f"bigmoe/{name}.route.csv"))
    plain = simulate(trace, "lru", "25%", profile="h100_sxm")
    longest = int((trace.phase == PREFILL).sum())
    whole = simulate(trace, "lru", "25%", profile="h100_sxm", prefill_chunk=longest)
    assert (whole.decision_digest, whole.metrics) == (plain.decision_digest, plain.metrics)
    floor = plain.bounds.all_resident.ttft_s
    for chunk in (16, 8):
        run = simulate(trace, "lru", "25%", profile="h100_sxm", prefill_chunk=chunk)
        metrics, ends = run.metrics, run.bounds
        assert metrics["accesses"] == distinct(compose(trace, prefill_chunk=chunk))
        assert sum(phase["accesses"] for phase in run.per_phase.values()) == metrics["accesses"]
        assert run.per_phase["decode"]["accesses"] == plain.per_phase["decode"]["accesses"]
        assert metrics["ttft_s"] == pytest.approx(sum(metrics[f"ttft_{p}_s"] for p in PARTS))
        # One request: what is not its prompt is its decode steps.
        decode_s = metrics["tpot_s"] * int((trace.phase == DECODE).sum())
        assert metrics["ttft_s"] + decode_s == pytest.approx(metrics["total_s"])
        assert metrics["ttft_p50_s"] == pytest.approx(metrics["ttft_s"])
        assert ends.all_resident.ttft_s > floor  # experts are read once a chunk
        floor = ends.all_resident.ttft_s
        assert floor < ends.compulsory.ttft_s <= metrics["ttft_s"] <= ends.no_cache.ttft_s
        assert ends.compulsory.misses == plain.bounds.compulsory.misses


def test_a_batch_of_64_behind_a_prompt_wider_than_the_cache():
    path = shared("flame_moe_290m_batch64.npz")
    facts = {"num_experts": 64, "expert_bytes": 1 << 20}
    prompt = import_trace(path, phase="prefill", **facts)
    trace = concatenate([prompt, import_trace(path, **facts)])
    asked = {"profile": "h100_sxm", "prefill_chunk": 256}
    run = simulate(trace, "lru", "25%", **asked)
    assert run.trace.steps == 2048 // 256 + 10
    assert run.metrics["accesses"] == distinct(compose(trace, prefill_chunk=256))
    # Nearly uniform routing: each chunk asks for every expert, of which a quarter fits.
    assert run.per_phase["prefill"]["accesses"] > 0.99 * 8 * 8 * 64
    assert run.metrics["hits"] == 0  # of a cyclic scan, under lru
    assert run.bounds.belady.hit_rate > 0.1
    kept = simulate(trace, "lru", "25%", batch=64, **asked)
    assert kept.decision_digest == run.decision_digest
    apart = simulate(trace, "lru", "25%", batch=1, **asked)
    assert apart.trace.steps == 8 + 640
