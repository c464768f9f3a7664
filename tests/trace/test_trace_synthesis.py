"""The generator does what its arguments say."""

import numpy as np
import pytest

from specmd.errors import SpecmdError
from specmd.trace import DECODE, PREFILL, interleave, locality, synthetic


def test_same_arguments_same_trace():
    assert synthetic(seed=3).digest == synthetic(seed=3).digest
    assert synthetic(seed=3).digest != synthetic(seed=4).digest


def test_it_says_that_it_is_synthetic():
    header = synthetic(expert_bytes=10, model="toy").header
    assert (header.kind, header.expert_bytes, header.model) == ("synthetic", 10, "toy")


def test_shape_of_requests_and_steps():
    trace = synthetic(num_requests=3, prompt_length=5, decode_length=4)
    assert (trace.num_tokens, trace.num_requests, trace.num_steps) == (27, 3, 3 * 5)
    assert np.bincount(trace.step).tolist() == [5, 1, 1, 1, 1] * 3
    assert trace.phase.tolist() == ([PREFILL] * 5 + [DECODE] * 4) * 3
    assert trace.prompt_lengths.tolist() == [5, 5, 5]


def test_batch_is_the_interleaved_recording():
    options = {"num_requests": 5, "prompt_length": 2, "raggedness": 0.8, "seed": 9}
    assert synthetic(batch=3, **options).digest == interleave(synthetic(**options), 3).digest


def test_ragged_requests_differ_within_bounds():
    trace = synthetic(num_requests=40, decode_length=10, raggedness=0.5)
    lengths = np.bincount(trace.request)
    assert lengths.min() == 5
    assert lengths.max() == 10


def test_weights_fall_with_rank_and_sum_to_one():
    weights = synthetic(top_k=6).weights.astype(np.float64)
    assert (np.diff(weights, axis=2) <= 0).all()
    np.testing.assert_allclose(weights.sum(axis=2), 1, atol=3e-3)


def test_zipf_makes_some_experts_popular():
    flat = locality(synthetic(zipf=0, reuse=0, decode_length=400))
    steep = locality(synthetic(zipf=1.5, reuse=0, decode_length=400))
    assert min(flat.popularity_entropy) > 0.99
    assert max(steep.popularity_entropy) < 0.95
    assert min(steep.top_tenth_share) > 1.4 * max(flat.top_tenth_share)


def test_reuse_brings_experts_back():
    options = {"zipf": 0, "num_requests": 1, "decode_length": 500}
    never = locality(synthetic(reuse=0, **options)).previous_step_reuse
    often = locality(synthetic(reuse=0.5, **options)).previous_step_reuse
    always = locality(synthetic(reuse=1, **options)).previous_step_reuse
    assert never == pytest.approx(0.25, abs=0.02)
    assert 0.5 < often < 0.75
    assert always == 1


@pytest.mark.parametrize("recall", [0.0, 0.6, 1.0])
def test_lookahead_has_the_recall_asked_for(recall):
    trace = synthetic(lookahead_depth=3, lookahead_recall=recall, decode_length=200)
    expected = [recall, recall**2, recall**3]
    np.testing.assert_allclose(locality(trace).lookahead_recall, expected, atol=0.02)


def test_lookahead_is_nan_exactly_beyond_the_last_layer():
    scores = synthetic(num_layers=4, lookahead_depth=2).lookahead
    for layer in range(4):
        for ahead in (1, 2):
            missing = np.isnan(scores[:, layer, ahead - 1])
            assert missing.all() if layer + ahead >= 4 else not missing.any()


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 17},
        {"num_experts": 0},
        {"num_layers": 0},
        {"num_requests": 0},
        {"decode_length": 0},
        {"prompt_length": -1},
        {"reuse": 1.5},
        {"zipf": -1},
        {"raggedness": float("nan")},
        {"lookahead_depth": 8},
        {"batch": 0},
    ],
)
def test_impossible_arguments(options):
    with pytest.raises(SpecmdError):
        synthetic(**options)
