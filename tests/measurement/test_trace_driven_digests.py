"""A trace played live through random weights decides what a simulation of it decides."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from learned_files import with_weights
from small_shapes import EXPERTS, LAYERS, TABLES, mixed, offload, shipped, small_shape

from specmd import simulate
from specmd.core import state as residency
from specmd.live.cache import Offload
from specmd.measurement.trace_workload import TraceWorkload
from specmd.policy.registry import entries
from specmd.trace import Trace, build_trace, interleave

EVICT = [e.name for e in entries("evict") if e.origin == "built-in" and "future" not in e.needs]
PREFETCH = [e.name for e in entries("prefetch") if not {"future", "draft"} & set(e.needs)]


@cache
def workload_of(trace: Trace, family: str) -> TraceWorkload:
    """What is played in fp32; an offload that ends leaves it as it was."""
    return TraceWorkload(trace, small_shape(family), dtype="float32")


def play(trace: Trace, family: str = "olmoe", **options: Any) -> tuple[TraceWorkload, Offload]:
    """Play a whole trace through a small model, transfers done before each event."""
    workload = workload_of(trace, family)
    with offload(
        workload.model,
        **options,
        deterministic=True,
        canary=True,
        store=workload.store(),
        routing=workload.routing,
        log_routing=True,
    ) as cache:
        steps = workload.play()
    assert [step.tokens for step in steps] == [batch.tokens for batch in workload.steps]
    return workload, cache


def agree(trace: Trace, family: str = "olmoe", **options: Any) -> None:
    """Live, simulated, and simulated again from the live run's own log: the same decisions."""
    for axis in {"evict", "prefetch"} & set(options):
        options[axis] = with_weights(axis, options[axis], trace.header)
    workload, cache = play(trace, family, **options)
    for routing in (trace, workload.trace, cache.trace):
        run = simulate(routing, **options, bounds=False)
        assert cache.decision_digest == run.decision_digest
    counts = cache.counters.sum(axis=(0, 1))
    for name in ("accesses", "reuse_hits", "prefetch_hits", "evictions", "compulsory_misses"):
        assert counts[getattr(residency, name.upper())] == run.metrics[name], name
    assert counts[residency.CAPACITY_MISSES] == run.metrics["capacity_misses"]
    assert counts[residency.COLLISION_MISSES] == run.metrics["collision_misses"]


@pytest.mark.parametrize("evict", EVICT)
def test_every_eviction_policy_on_mixed_steps(evict: str) -> None:
    options = {"prefetch": "next_gate", "schedule": "guard", "interpreted": True}
    agree(mixed(), evict=evict, capacity=24, training=mixed(1), **options)


@pytest.mark.parametrize("prefetch", [*PREFETCH, "next_gate:depth=2,width=6"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_every_prefetcher_on_mixed_steps(prefetch: str, scope: str) -> None:
    capacity = 24 if scope == "global" else "4/layer"
    other = mixed(1, full=True)
    options: dict[str, Any] = {"capacity": capacity, "scope": scope, "training": other}
    options |= {"evict": "lfu", "prefetch": prefetch, "schedule": "fifo", "interpreted": True}
    agree(mixed(2, full=True), **options)


@pytest.mark.parametrize("evict", ["least_stale", "lrfu", "lru"])
@pytest.mark.parametrize(
    ("name", "tokens"), [("tiny-math-b1-full", 140), ("tiny-mixed-b8", 600), ("tiny-code-b1", 130)]
)
def test_shipped_traces(name: str, tokens: int, evict: str) -> None:
    # One of them is compiled: a kernel takes seconds, and serves all three traces.
    options = {"prefetch": "next_gate", "capacity": "20%", "schedule": "guard"}
    agree(shipped(name, tokens), evict=evict, **options, interpreted=evict != "lru")


@pytest.mark.parametrize("family", TABLES)
def test_every_family(family: str) -> None:
    options = {"prefetch": "next_gate", "schedule": "fifo", "interpreted": True}
    agree(mixed(3), family, evict="lru", capacity=20, **options)


@pytest.mark.parametrize("capacity", [3, 4, 5, 64, 128])
def test_capacities(capacity: int) -> None:
    options = {"prefetch": "next_gate", "schedule": "fifo", "interpreted": True}
    agree(mixed(4), evict="least_stale", capacity=capacity, **options)


def test_bypass_admission() -> None:
    options = {"admission": "bypass", "training": mixed(1), "interpreted": True}
    agree(mixed(5), evict="static", capacity=24, **options)


@pytest.mark.parametrize("seed", range(3))
def test_tokens_of_a_step_in_any_order_and_weights_in_single_precision(seed: int) -> None:
    trace = mixed(seed, interleaved=True, single=True)
    options = {"prefetch": "next_gate", "schedule": "guard", "interpreted": True}
    agree(trace, evict="lrfu", capacity=24, **options)


@pytest.mark.parametrize("prefetch", ["none", "next_gate", "prev_token"])
@pytest.mark.parametrize("evict", ["lru", "lrfu"])
def test_ragged_rows_and_layers_that_nobody_reaches(evict: str, prefetch: str) -> None:
    whole, rng = mixed(7), np.random.default_rng(7)
    ids, weights = whole.expert_ids.astype(int), whole.weights.copy()
    missing = np.arange(ids.shape[2]) >= rng.integers(1, ids.shape[2] + 1, ids.shape[:2])[..., None]
    missing[rng.random(ids.shape[:2]) < 0.2] = True
    missing[whole.step == 4, 2] = True  # the first layers of a step, and the last one
    missing[whole.step == 5, -1] = True
    missing[whole.step == 6, 0] = True
    ids[missing], weights[missing] = -1, 0
    arrays = {name: getattr(whole, name) for name in ("step", "request", "phase", "lookahead")}
    trace = build_trace(
        ids, num_experts=EXPERTS, weights=weights, ragged=True,
        prompt_lengths=whole.prompt_lengths, **arrays,
    )  # fmt: skip
    options = {"evict": evict, "prefetch": prefetch, "schedule": "guard", "capacity": 24}
    agree(trace, **options, interpreted=True)
    _, cache = play(trace, **options, interpreted=True, prefill="double_buffer")
    for name in ("expert_ids", "weights", "step", "request", "phase"):
        assert (getattr(cache.trace, name) == getattr(trace, name)).all(), name


def test_batches_made_of_recordings() -> None:
    trace = interleave(shipped("tiny-prose-b1", 503), batch=3)
    options = {"prefetch": "prev_token", "schedule": "guard", "interpreted": True}
    agree(trace, evict="lru", capacity=30, **options)


def test_what_is_logged_is_what_was_played() -> None:
    trace = mixed(6, single=True)
    options = {"evict": "lru", "prefetch": "next_gate:depth=2", "interpreted": True}
    _, cache = play(trace, **options, capacity=24)
    logged = cache.trace
    for name in ("expert_ids", "weights", "step", "request", "phase", "prompt_lengths"):
        assert (getattr(logged, name) == getattr(trace, name)).all(), name
    seen = slice(None), slice(0, LAYERS - 2)
    assert (logged.lookahead[seen] == trace.lookahead[seen]).all()
