"""Runs of a trace share what a prefetcher plans, unless it looked at the cache."""

import numpy as np
import pytest

import specmd
from specmd.core.event import World
from specmd.simulation import plans, walk
from specmd.simulation.plans import Watched
from specmd.trace import synthetic

OPTIONS = {"profile": "t4", "bounds": False, "interpreted": True}


def trace():
    return synthetic(num_layers=3, num_experts=8, top_k=2, expert_bytes=10**6, prompt_length=4)


@pytest.fixture
def planners(monkeypatch):
    made = []

    class Counted(walk.Planner):
        def __init__(self, *args, **kwargs):
            made.append(1)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(walk, "Planner", Counted)
    return made


@pytest.mark.parametrize("prefetch", ["prev_token:depth=2", "oracle:recall=0.5", "random"])
@pytest.mark.parametrize("evict", ["lru", "belady"])
def test_a_plan_is_made_once_and_changes_nothing(planners, prefetch, evict):
    shared = trace()
    for capacity in (6, 9, 14):
        options = {"evict": evict, "capacity": capacity, "prefetch": prefetch, **OPTIONS}
        run, alone = specmd.simulate(shared, **options), specmd.simulate(trace(), **options)
        assert run.decision_digest == alone.decision_digest
        assert run.metrics == alone.metrics
    assert len(planners) == 1 + 3


def test_another_seed_or_a_warm_up_is_another_plan(planners):
    shared = trace()
    for more in (
        {},
        {"seed": 5},
        {"warmup": 3},
        {"reset": "request"},
        {"prefetch": "random:width=1"},
    ):
        specmd.simulate(shared, capacity=9, **{"prefetch": "random", **OPTIONS, **more})
    assert len(planners) == 5


def test_what_was_told_the_capacity_plans_for_it_alone():
    world = Watched(*World.of(trace().header, [4]))
    assert (world.num_keys, world.num_layers, world.seed) == (24, 3, 0)
    assert world.is_shared
    assert world.capacity.tolist() == [4]
    assert not world.is_shared
    for look in (lambda w: w.pools, lambda w: w[3], list, lambda w: w.is_by_layer):
        each = Watched(*World.of(trace().header, [4]))
        look(each)
        assert not each.is_shared


def test_a_plan_too_large_is_not_kept(planners, monkeypatch):
    monkeypatch.setattr(plans, "MOST_BYTES", 100)
    shared = trace()
    for capacity in (6, 9):
        specmd.simulate(shared, capacity=capacity, prefetch="random", **OPTIONS)
    assert len(planners) == 2
    assert np.isfinite(
        specmd.simulate(shared, capacity=6, prefetch="random", **OPTIONS).metrics["tpot_s"]
    )
