"""Made-up routing by the LRU stack model has the hit rates its weights say."""

import numpy as np
import pytest

from specmd.errors import SpecmdError
from specmd.runs.counters import tally
from specmd.runs.resolve import grid
from specmd.simulation.replay import replay
from specmd.trace.header import DECODE, PREFILL
from specmd.trace.stack_model import stack_routed


def hit_rate(trace, capacity: str) -> float:
    (config,) = grid(trace, evict="lru", capacity=capacity, scope="layer")
    return tally(replay(trace, config).counters[DECODE], None)["hit_rate"]


def test_the_same_arguments_give_the_same_trace():
    weights = np.linspace(1.0, 0.1, 16)
    made = [stack_routed(weights, num_layers=3, top_k=2, decode_length=20) for _ in range(2)]
    assert made[0].digest == made[1].digest


def test_another_seed_gives_another_trace():
    weights = np.ones(16)
    made = [
        stack_routed(weights, num_layers=3, top_k=2, decode_length=20, seed=seed) for seed in (1, 2)
    ]
    assert made[0].digest != made[1].digest


def test_places_of_no_weight_are_never_drawn():
    weights = np.zeros(32)
    weights[:4] = 1.0
    trace = stack_routed(weights, num_layers=2, top_k=2, decode_length=200)
    assert hit_rate(trace, "4/layer") > 0.98  # the first use of four experts misses, no other


def test_equal_weights_hit_as_often_as_the_cache_is_a_share():
    trace = stack_routed(np.ones(64), num_layers=4, top_k=4, decode_length=400)
    assert hit_rate(trace, "16/layer") == pytest.approx(0.25, abs=0.03)


def test_no_token_uses_an_expert_twice():
    trace = stack_routed(np.ones(8), num_layers=4, top_k=5, decode_length=50)
    ordered = np.sort(np.asarray(trace.expert_ids), axis=-1)
    assert (np.diff(ordered.astype(int), axis=-1) > 0).all()


def test_a_prompt_is_one_wide_step():
    trace = stack_routed(np.ones(8), num_layers=2, top_k=2, decode_length=5, prompt_length=7)
    assert trace.num_steps == 6
    assert (trace.phase == PREFILL).sum() == 7
    assert (np.asarray(trace.step)[:7] == 0).all()


def test_lookahead_scores_are_made_where_asked_for():
    trace = stack_routed(np.ones(8), num_layers=3, top_k=2, decode_length=5, lookahead_depth=1)
    assert trace.lookahead is not None
    assert trace.lookahead.shape == (5, 3, 1, 8)


def test_fewer_places_than_experts_of_a_token_is_an_error():
    with pytest.raises(SpecmdError, match="need as many places"):
        stack_routed(np.array([1.0, 0.0, 0.0]), num_layers=1, top_k=2, decode_length=1)
