"""What computing loses beside copies is charged where the profile says, and adds up exactly."""

import pytest

from specmd.core.state import PREFETCH_ISSUED
from specmd.hardware.profile import load_profile
from specmd.runs.counters import tally
from specmd.runs.metrics import PARTS
from specmd.runs.options import RunConfig
from specmd.simulation.costs import coefficients
from specmd.simulation.replay import replay
from specmd.trace import synthetic

OVERHEAD = list(PARTS).index("overhead")
COMPUTE = list(PARTS).index("compute")
STALLS = [list(PARTS).index(name) for name in ("demand_stall", "late_prefetch_stall")]
EXPERT_BYTES = 4_000_000


@pytest.fixture(scope="module")
def trace():
    return synthetic(
        num_requests=2, prompt_length=6, decode_length=20, lookahead_depth=1, seed=3,
        expert_bytes=EXPERT_BYTES,
    )  # fmt: skip


def play(trace, prefetch="none", miss="overlap", **losses):
    """Overhead and stall seconds of a run, and its counters."""
    config = RunConfig(
        evict="lru", prefetch=prefetch, miss=miss, capacity="200", capacity_slots=200
    )
    costs = coefficients(load_profile("t4"), None, EXPERT_BYTES)
    costs = costs._replace(**{"fetch_s": 0.0} | losses)
    outcome = replay(trace, config, costs=costs)
    seconds = outcome.step_seconds.sum(axis=0)
    return seconds[OVERHEAD], seconds[STALLS].sum(), outcome.counters.sum(axis=(0, 1))


def test_every_prefetch_is_charged_and_no_demand(trace):
    for prefetch in ("next_gate", "none"):
        plain, _, _ = play(trace, prefetch=prefetch)
        charged, _, counters = play(trace, prefetch=prefetch, transfer_s=1e-6)
        issued = int(counters[PREFETCH_ISSUED])
        assert (issued > 0) == (prefetch != "none")
        assert charged - plain == pytest.approx(1e-6 * issued, rel=1e-6)


def test_a_prefetcher_that_looks_ahead_is_charged_a_layer(trace):
    layers = trace.num_steps * trace.header.num_layers
    for prefetch, count in (("next_gate", layers), ("ema", layers), ("oracle", 0), ("none", 0)):
        plain, _, _ = play(trace, prefetch=prefetch)
        charged, _, _ = play(trace, prefetch=prefetch, predict_s=1e-6)
        assert charged - plain == pytest.approx(1e-6 * count, rel=1e-3)


@pytest.mark.parametrize(
    ("prefetch", "asks"), [("next_gate", 1), ("shuffled", 1), ("ema", 0), ("oracle", 0)]
)
def test_gates_are_charged_where_they_are_asked(trace, prefetch, asks):
    """One for each layer looked ahead to, in every layer that has so many behind it."""
    none = {"kernel_s": 0.0, "prefill_read_scale": 1.0, "gate_weights": 1e3, "weight_read_s": 0.0}
    config = RunConfig(evict="lru", prefetch=prefetch, capacity="200", capacity_slots=200)
    costs = coefficients(load_profile("t4"), None, EXPERT_BYTES)._replace(**none, weight_flop_s=0.0)
    count = asks * trace.num_steps * (trace.header.num_layers - 1)
    plain = replay(trace, config, costs=costs)
    assert plain.predict_s == 0.0
    for part, figure in ((COMPUTE, {"weight_read_s": 1e-9}), (OVERHEAD, {"kernel_s": 1e-6})):
        charged = replay(trace, config, costs=costs._replace(**figure))
        spent = (charged.step_seconds - plain.step_seconds).sum(axis=0)[part]
        assert spent == pytest.approx(1e-6 * count, rel=1e-3)
        assert charged.predict_s == pytest.approx(1e-6 * count)


@pytest.mark.parametrize("miss", ["overlap", "block"])
@pytest.mark.parametrize("prefetch", ["none", "next_gate"])
def test_every_demanded_copy_is_charged_and_no_prefetch(trace, miss, prefetch):
    plain, _, _ = play(trace, prefetch, miss=miss)
    charged, _, counters = play(trace, prefetch, miss=miss, fetch_s=1e-9)
    misses = tally(counters[None], None)["misses"]
    assert charged - plain == pytest.approx(1e-9 * misses, rel=1e-3)


def test_what_waiting_loses_is_not_hidden_by_the_next_copy(trace):
    """It delays the run by all of itself, though copies that follow each other wait in between."""
    plain, stalls, _ = play(trace)
    charged, longer, _ = play(trace, resume_s=1e-4)
    waits = round((charged - plain) / 1e-4)
    assert waits > 0
    assert longer == pytest.approx(stalls, rel=1e-6)


@pytest.mark.parametrize("miss", ["overlap", "block"])
def test_a_layer_that_waits_is_charged_once(trace, miss):
    plain, stalls, _ = play(trace, miss=miss)
    charged, _, counters = play(trace, miss=miss, resume_s=1e-9)
    waits = round((charged - plain) / 1e-9)
    layers = trace.num_steps * trace.header.num_layers
    assert stalls > 0
    assert 0 < waits <= min(layers, tally(counters[None], None)["misses"])


def test_an_idle_link_wakes_and_a_busy_one_does_not(trace):
    """Waking delays the first transfer of an event: stalls grow by no more than that an event."""
    _, plain, _ = play(trace)
    _, slower, _ = play(trace, wake_s=1e-3)
    events = trace.num_steps * trace.header.num_layers
    assert 0 < slower - plain <= 1e-3 * events + 1e-9
