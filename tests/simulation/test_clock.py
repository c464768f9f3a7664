"""Decisions timed afterwards take what they take when the timed link makes them."""

import random
from dataclasses import replace as changed

import numpy as np
import pytest

from specmd.hardware.profile import load_profile
from specmd.hardware.shape import load_shape
from specmd.runs.options import RunConfig
from specmd.simulation.costs import coefficients
from specmd.simulation.replay import replay
from specmd.simulation.walk import Walk
from specmd.trace import compose, synthetic

PROFILES = ("t4", "rtx4090", "h100_pcie")


def both(trace, config, costs, *, interpreted=True, residency="cache"):
    """Time a run by its notes, and by the timed link as it decides."""
    shared = replay(trace, config, costs=costs, interpreted=interpreted, residency=residency)
    alone = Walk(trace, config, None, costs, residency, interpreted, None).run()
    return shared, alone


def agree(shared, alone):
    assert shared.decision_digest == alone.decision_digest
    assert (shared.counters == alone.counters).all()
    np.testing.assert_allclose(shared.step_seconds, alone.step_seconds, rtol=1e-9, atol=1e-15)
    assert shared.link_busy_s == pytest.approx(alone.link_busy_s, rel=1e-9)
    assert (shared.missed == alone.missed).all()
    assert not alone.late.any()
    assert not alone.ahead.any()


@pytest.mark.parametrize("seed", range(24))
def test_timed_afterwards_is_timed_at_once(seed):
    rng = random.Random(seed)
    trace = synthetic(
        num_layers=rng.randint(1, 4),
        num_experts=8,
        top_k=rng.randint(1, 3),
        num_requests=rng.randint(2, 3),
        prompt_length=rng.choice((0, 1, 5)),
        decode_length=rng.randint(2, 9),
        raggedness=rng.choice((0.0, 0.0, 0.3)),
        expert_bytes=10**6,
        seed=seed,
    )
    if rng.random() < 0.4:
        trace = compose(trace, batch=2)
    layers = trace.header.num_layers
    if rng.random() < 0.4:
        sizes = [rng.choice((10**6, 3 * 10**6)) for _ in range(layers)]
        sized = {"expert_bytes": None, "expert_bytes_by_layer": tuple(sizes)}
        header = trace.header.model_copy(update=sized)
        trace = changed(trace, header=header)
    slots = rng.randint(1, 8 * layers)
    config = RunConfig(
        evict=rng.choice(("lru", "lfu", "least_stale:order=cycle", "random", "belady:bypass=true")),
        admission=rng.choice(("forced", "bypass")),
        miss=rng.choice(("overlap", "block", "host:tokens=1")),
        warmup=rng.choice((0, 0, 1)),
        reset=rng.choice(("none", "request")),
        capacity=str(slots),
        capacity_slots=slots,
    )
    costs = coefficients(load_profile(rng.choice(PROFILES)), load_shape("olmoe-1b-7b"), 10**6)
    residency = rng.choice(("cache", "cache", "all", "none"))
    agree(*both(trace, config, costs, residency=residency))
