"""Experts put off to the next layer: timed by hand, against a plain clock, and in every engine."""

from collections import Counter

import numpy as np
import pytest

import specmd
from specmd.core import state as residency
from specmd.core.state import DEFERRED, HOST_EXPERTS
from specmd.hardware.profile import load_profile
from specmd.hardware.shape import load_shape
from specmd.runs.metrics import PART_COLUMN
from specmd.runs.options import RunConfig
from specmd.simulation.costs import CostCoefficients, coefficients
from specmd.simulation.replay import replay
from specmd.simulation.walk import Walk, is_timeless
from specmd.trace import DECODE, PREFILL, build_trace, compose, synthetic

MB = 10**6
HEAVIER = [0.75, 0.25]
ACCESS = residency.LOG_HIT, residency.LOG_FETCH, residency.LOG_HOST, residency.LOG_DEFER


def clock(**figures):
    none = dict.fromkeys(CostCoefficients._fields, 0.0) | {
        "bytes_per_s": float(MB), "chunk_bytes": float(MB), "disk_s_per_byte": 1 / MB,
        "prefill_flop_scale": 1.0, "prefill_read_scale": 1.0,
    }  # fmt: skip
    return CostCoefficients(**none | figures)


def config(slots, **more):
    return RunConfig(capacity=str(slots), capacity_slots=slots, **{"miss": "deferral"} | more)


@pytest.fixture
def trace():
    """Three layers, one decode step of experts 0 and 1, the first the heavier; all are missing."""
    return build_trace(
        [[[0, 1]] * 3], num_experts=4, weights=[[HEAVIER] * 3], phase=DECODE,
        header={"expert_bytes": MB},
    )  # fmt: skip


def test_the_next_layer_waits_and_the_last_puts_nothing_off(trace):
    # Dense 2 s a layer, the host 3 s an expert.
    costs = clock(layer_read_s=2.0, host_read_s_per_byte=3 / MB)
    found = replay(trace, config(4), costs=costs, interpreted=True)
    # Layer 0: routed at 2, expert 0 until 5, expert 1 until 8: put off. Layer 1 is routed at 7, its
    # own until 11, and again one put off, until 14. Layer 2: routed at 13, both wait, until 20.
    assert found.step_seconds[0].sum() == pytest.approx(20.0)
    waits = found.step_seconds[0, PART_COLUMN["cpu_expert"]]
    assert waits == pytest.approx(3.0 + 4.0 + 7.0)
    assert found.counters[..., HOST_EXPERTS].sum() == 6
    assert found.counters[1, :, DEFERRED].tolist() == [1, 1, 0]
    at_once = replay(trace, config(4, miss="host"), costs=costs, interpreted=True)
    assert at_once.step_seconds[0].sum() == pytest.approx(3 * 2.0 + 6 * 3.0)


def test_a_layer_waits_for_what_was_put_off_even_if_all_of_its_own_is_there():
    """A prefill brings layer 1's; layer 0's have left for them."""
    made = build_trace(
        [[[0, 1], [0, 1]], [[0, 1], [0, 1]]], num_experts=4, weights=[[HEAVIER] * 2] * 2,
        step=[0, 1], phase=[PREFILL, DECODE], header={"expert_bytes": MB},
    )  # fmt: skip
    costs = clock(layer_read_s=2.0, host_read_s_per_byte=3 / MB, read_s_per_byte=0.5 / MB)
    found = replay(made, config(2), costs=costs, interpreted=True).step_seconds[1]
    # Layer 0: routed at 2, host until 5 and until 8. Layer 1: routed at 7, two hits until 8.
    assert found.sum() == pytest.approx(8.0)
    assert found[PART_COLUMN["cpu_expert"]] == pytest.approx(3.0)
    slower = costs._replace(host_read_s_per_byte=5 / MB)
    found = replay(made, config(2), costs=slower, interpreted=True).step_seconds[1]
    assert found.sum() == pytest.approx(2.0 + 5.0 + 5.0)
    assert found[PART_COLUMN["cpu_expert"]] == pytest.approx(5.0 + (12.0 - 10.0))


def test_what_is_put_off_is_substituted_mass_and_changes_rows(trace):
    found = specmd.simulate(trace, capacity="4", miss="deferral", interpreted=True).metrics
    assert (found["misses"], found["host_experts"], found["deferred"]) == (6, 6, 2)
    assert found["kept_mass"] == pytest.approx(1 - 2 * 0.25 / 3)
    assert found["substituted_mass"] == pytest.approx(2 * 0.25 / 3)
    assert found["changed_rows"] == pytest.approx(2 / 3)
    assert found["bytes_demand"] == found["evictions"] == 0


def test_low_ranked_for_one_token_is_not_enough():
    """Experts 0 and 1 of two tokens that weigh them the other way round: both are computed."""
    made = build_trace(
        [[[0, 1], [0, 1]], [[1, 0], [1, 0]]], num_experts=4, weights=[[HEAVIER] * 2] * 2,
        step=[0, 0], phase=DECODE, header={"expert_bytes": MB},
    )  # fmt: skip
    found = specmd.simulate(made, capacity="4", miss="deferral", interpreted=True).metrics
    assert (found["host_experts"], found["deferred"], found["kept_mass"]) == (4, 0, 1.0)


def made(seed):
    rng = np.random.default_rng(seed)
    trace = synthetic(
        num_layers=int(rng.integers(1, 5)), num_experts=8, top_k=int(rng.integers(1, 5)),
        num_requests=2, prompt_length=int(rng.integers(1, 4)), decode_length=8, logits=True,
        expert_bytes=MB, seed=seed,
    )  # fmt: skip
    return compose(trace, batch=2) if seed % 2 else trace


def plain_seconds(trace, log, steps_loads, *, dense, device, host, token):
    """The rule of time, read literally: steps of (layer, hits, now and later on the host)."""
    found, now, lane = [], 0.0, 0.0
    for step in range(trace.num_steps):
        began, owed = now, 0.0
        for layer in range(trace.header.num_layers):
            now += dense
            hits, at_once, later = log[step, layer]
            routed = now
            waits = owed
            for key in at_once:
                lane = max(lane, routed) + host + token * steps_loads[step, key]
                waits = lane
            owed = 0.0
            for key in later:
                lane = max(lane, routed) + host + token * steps_loads[step, key]
                owed = lane
            now = max(now + device * hits, waits)
        found.append(now - began)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_timed_as_a_plain_clock_has_it(seed):
    trace = made(seed)
    log, entries = {}, []

    def tell(core, entry, key):
        if entry in ACCESS:
            entries.append((entry, int(key)))

    costs = clock(
        layer_read_s=0.3, read_s_per_byte=0.2 / MB, host_read_s_per_byte=0.7 / MB,
        host_token_s=0.05, bytes_per_s=1e15,
    )  # fmt: skip
    layers, experts = trace.header.num_layers, trace.header.num_experts
    asked = config(max(1, layers * experts // 3), miss="deferral:deferred=1")
    found = Walk(
        trace, asked, None, costs, "cache", True, None, also={residency.log: tell}
    ).run()  # fmt: skip
    assert found.counters[..., DEFERRED].sum() > 0 or layers == 1 or trace.header.top_k == 1
    loads, at = {}, 0
    for step in range(trace.num_steps):
        inside = trace.step == step
        for layer in range(layers):
            used = Counter((layer * experts + trace.expert_ids[inside, layer]).ravel().tolist())
            loads |= {(step, key): count for key, count in used.items()}
            own = entries[at : at + len(used)]
            at += len(used)
            hit, fetched, at_once, later = ([k for e, k in own if e == kind] for kind in ACCESS)
            log[step, layer] = len(hit) + len(fetched), at_once, later
    assert at == len(entries)
    expected = plain_seconds(trace, log, loads, dense=0.3, device=0.2, host=0.7, token=0.05)
    decodes = [s for s in range(trace.num_steps) if (trace.phase[trace.step == s] == DECODE).all()]
    assert found.step_seconds.sum(axis=1)[decodes] == pytest.approx(
        np.array(expected)[decodes], rel=1e-9
    )


@pytest.mark.parametrize("tier", [{}, {"host_slots": 5}], ids=["memory", "disk"])
def test_timed_decides_as_untimed_and_compiled_as_interpreted(tier):
    costs = coefficients(load_profile("t4"), load_shape("olmoe-1b-7b"), MB)
    costs = costs._replace(disk_s_per_byte=1 / 2e9)
    for seed in range(6):
        trace, asked = made(seed), config(6, reset="request" if seed % 3 else "none", **tier)
        assert not is_timeless(asked)  # so it is never timed afterwards, from notes
        plain = replay(trace, asked, interpreted=True)
        # One kernel: that a chain is the same compiled is looked at in tests/core/test_tier.py.
        runs = [
            replay(trace, asked, costs=costs, interpreted=not compiled, compiled=compiled)
            for compiled in ((False,) if tier else (False, True))
        ]
        for run in runs:
            assert run.decision_digest == plain.decision_digest, f"seed {seed}"
            assert run.host_digest == plain.host_digest, f"seed {seed}"
            assert (run.counters == plain.counters).all(), f"seed {seed}"
            seconds = run.step_seconds
            np.testing.assert_allclose(seconds, runs[0].step_seconds, rtol=1e-9, atol=1e-15)


def test_reading_from_a_disk_for_the_next_layer_is_its_stall():
    """The host has one slot: every expert is read first, 1 s; the host computes in no time."""
    made = build_trace(
        [[[0, 1]] * 2], num_experts=4, weights=[[HEAVIER] * 2], phase=DECODE,
        header={"expert_bytes": MB},
    )  # fmt: skip
    costs = clock(layer_read_s=0.5, host_read_s_per_byte=0.001 / MB)
    found = replay(made, config(2, host_slots=1), costs=costs, interpreted=True).step_seconds[0]
    # Read: layer 0's until 1.5 and 2.5; layer 1 is routed at 2.0, its own are read until 4.5.
    assert found.sum() == pytest.approx(4.5, abs=0.01)
    assert found[PART_COLUMN["disk_stall"]] == pytest.approx(1.0 + 2.5, abs=0.01)
