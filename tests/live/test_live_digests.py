"""The live cache decides what a simulation of the same routing decides."""

from __future__ import annotations

import pytest
from learned_files import with_weights
from live_models import build, generate, offload, prompt, tiny

from specmd import simulate
from specmd.errors import SpecmdError
from specmd.policy.registry import entries
from specmd.recording import Recorder
from specmd.trace import Trace

EVICT = [e.name for e in entries("evict") if e.origin == "built-in" and "future" not in e.needs]
PREFETCH = [
    e.name
    for e in entries("prefetch")
    if not {"future", "draft"} & set(e.needs) and e.name != "none"
]
# A kernel takes seconds to compile. Compiled here is one that reads what a pass has shown, one that
# keeps a history, and none; the other prefetchers are interpreted, as eviction is.
COMPILED = {"prev_token", "next_gate", "none"}
TEXT = prompt(1, 12, vocab=2048)
OTHER = prompt(1, 14, vocab=2048, seed=1)


@pytest.fixture(scope="module")
def recorded() -> Trace:
    return record(TEXT)


@pytest.fixture(scope="module")
def other() -> Trace:
    """What policies are trained on."""
    return record(OTHER)


def record(text: dict) -> Trace:
    with Recorder(tiny(), lookahead=2, logits="full") as recorder:
        generate(tiny(), 16, **text)
    return recorder.trace


@pytest.mark.parametrize("evict", EVICT)
def test_every_eviction_policy(evict: str, recorded: Trace, other: Trace) -> None:
    evict = with_weights("evict", evict, recorded.header)
    options = {"evict": evict, "prefetch": "prev_token", "capacity": 24, "schedule": "guard"}
    with offload(
        tiny(), **options, training=other, deterministic=True, interpreted=True, canary=True
    ) as cache:
        generate(tiny(), 16, **TEXT)
    run = simulate(recorded, **options, training=other, bounds=False, interpreted=True)
    assert cache.decision_digest == run.decision_digest
    assert cache.report().misses == run.metrics["misses"]


@pytest.mark.parametrize("schedule", ["fifo", "guard"])
@pytest.mark.parametrize("prefetch", [*PREFETCH, "next_gate:depth=2,width=6", "none"])
def test_every_prefetcher(prefetch: str, schedule: str, recorded: Trace, other: Trace) -> None:
    python = prefetch.partition(":")[0] not in COMPILED
    prefetch = with_weights("prefetch", prefetch, recorded.header)
    options = {"evict": "lru", "prefetch": prefetch, "capacity": 20, "schedule": schedule}
    how = {"deterministic": True, "log_routing": True, "interpreted": python}
    with offload(tiny(), **options, training=other, **how) as cache:
        generate(tiny(), 16, **TEXT)
    for trace in (recorded, cache.trace):
        run = simulate(trace, **options, training=other, bounds=False, interpreted=True)
        assert cache.decision_digest == run.decision_digest
        found = cache.report().foreseen
        for metric, value in (found.metrics() if found else {}).items():
            assert value == run.metrics[metric]


@pytest.mark.parametrize("capacity", [3, 4, 5, 64, 128])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_capacities_and_scopes(capacity: int, scope: str, recorded: Trace) -> None:
    options = {
        "evict": "least_stale",
        "prefetch": "next_gate",
        "capacity": capacity if scope == "global" else f"{capacity // 8 + 1}/layer",
        "scope": scope,
    }
    with offload(tiny(), **options, schedule="fifo", deterministic=True, interpreted=True) as cache:
        generate(tiny(), 16, **TEXT)
    run = simulate(recorded, **options, schedule="fifo", bounds=False, interpreted=True)
    assert cache.decision_digest == run.decision_digest


def test_bypass_admission(recorded: Trace, other: Trace) -> None:
    options = {"evict": "static", "capacity": 24, "admission": "bypass"}
    with offload(tiny(), **options, training=other, deterministic=True, interpreted=True) as cache:
        generate(tiny(), 16, **TEXT)
    run = simulate(recorded, **options, training=other, bounds=False, interpreted=True)
    assert cache.decision_digest == run.decision_digest


@pytest.mark.parametrize("admission", [e.name for e in entries("admission")])
def test_every_admission_policy(admission: str, recorded: Trace) -> None:
    options = {"evict": "lfu", "prefetch": "prev_token", "capacity": 24, "admission": admission}
    with offload(tiny(), **options, deterministic=True, interpreted=True, canary=True) as cache:
        generate(tiny(), 16, **TEXT)
    run = simulate(recorded, **options, bounds=False, interpreted=True)
    assert cache.decision_digest == run.decision_digest
    assert cache.report().misses == run.metrics["misses"]


@pytest.mark.parametrize("allocate", [e.name for e in entries("allocate")])
def test_every_allocation_policy(allocate: str, recorded: Trace, other: Trace) -> None:
    options = {"evict": "lru", "scope": "layer", "capacity": 40, "allocate": allocate}
    with offload(tiny(), **options, training=other, deterministic=True, interpreted=True) as cache:
        generate(tiny(), 16, **TEXT)
    run = simulate(recorded, **options, training=other, bounds=False, interpreted=True)
    assert cache.decision_digest == run.decision_digest


@pytest.mark.parametrize("prefetch", ["next_gate:depth=2", "prev_token"])
@pytest.mark.parametrize("schedule", [e.name for e in entries("schedule") if not e.simulated_only])
def test_every_schedule(schedule: str, prefetch: str, recorded: Trace) -> None:
    options = {"evict": "lru", "prefetch": prefetch, "capacity": 24, "schedule": schedule}
    with offload(tiny(), **options, deterministic=True, interpreted=True, canary=True) as cache:
        generate(tiny(), 16, **TEXT)
    run = simulate(recorded, **options, bounds=False, interpreted=True)
    assert cache.decision_digest == run.decision_digest
    assert cache.report().misses == run.metrics["misses"]


@pytest.mark.parametrize("schedule", [e.name for e in entries("schedule") if e.simulated_only])
def test_what_needs_a_clock_is_refused(schedule: str) -> None:
    with pytest.raises(SpecmdError, match="a clock that a live cache has not"):
        offload(tiny(), capacity=24, prefetch="prev_token", schedule=schedule)


def test_padding_and_ended_requests_demand_nothing() -> None:
    model, inputs = build("olmoe"), prompt(3, 9)
    model.generation_config.eos_token_id = list(range(40, 60))  # requests end at different steps
    with Recorder(model) as recorder:
        generate(model, 12, **inputs)
    options = {"evict": "lru", "capacity": 9, "prefetch": "next_gate"}
    with offload(
        model, **options, schedule="fifo", deterministic=True, log_routing=True, interpreted=True
    ) as cache:
        generate(model, 12, **inputs)
    run = simulate(recorder.trace, **options, bounds=False, interpreted=True)
    assert cache.decision_digest == run.decision_digest
    ours, theirs = cache.trace, recorder.trace
    for name in ("expert_ids", "step", "request", "phase", "token_ids", "weights"):
        assert (getattr(ours, name) == getattr(theirs, name)).all(), name


def test_what_needs_the_future_is_refused() -> None:
    with pytest.raises(SpecmdError, match="needs to know the future"):
        offload(tiny(), evict="belady")
    with pytest.raises(SpecmdError, match="needs to know the future"):
        offload(tiny(), prefetch="oracle")
    with pytest.raises(SpecmdError, match="training"):
        offload(tiny(), evict="static")
