"""The bootstrap: paired by request, seeded, silent where there is nothing to draw."""

import numpy as np
import pytest

from specmd.advice.requests import RequestTimes, lead, spread

SEED = 7


def times(tpot, steps=None, ttft=None):
    tpot = np.asarray(tpot, float)
    steps = np.full(len(tpot), 10) if steps is None else np.asarray(steps)
    ttft = np.full(len(tpot), np.nan) if ttft is None else np.asarray(ttft, float)
    return RequestTimes(ttft, tpot, steps)


def test_pairs_see_what_the_spread_hides():
    rng = np.random.default_rng(SEED)
    easy = rng.uniform(0.01, 0.1, 200)
    first, second = times(easy), times(easy * 1.01)
    found = lead(first, second, "tpot", SEED)
    assert found.stays_first == 1.0
    assert found.margin == pytest.approx(0.01)
    assert found.high - found.low < 1e-9
    alone = spread(first, "tpot", SEED)
    assert alone.high / alone.low > 1.05  # far more than the lead


def test_a_toss_is_a_toss():
    rng = np.random.default_rng(SEED)
    one, other = rng.uniform(1, 2, (2, 300))
    found = lead(times(one), times(other * one.sum() / other.sum()), "tpot", SEED)
    assert found.low < 0 < found.high
    assert 0.4 < found.stays_first < 0.6


def test_requests_count_by_their_steps():
    uneven = times([1.0, 3.0, 3.0], steps=[98, 1, 1])
    found = lead(uneven, times([2.0, 3.0, 3.0], steps=[98, 1, 1]), "tpot", SEED)
    assert found.margin == pytest.approx(98 / 104)


def test_ttft_is_of_the_requests_that_have_one():
    found = spread(times([1, 1, 1], ttft=[np.nan, 2.0, 2.0]), "ttft", SEED)
    assert (found.low, found.high, found.requests) == (2.0, 2.0, 2)


def test_one_request_says_nothing():
    assert spread(times([1.0]), "tpot", SEED) is None
    assert lead(times([1.0]), times([2.0]), "tpot", SEED) is None
    assert spread(None, "tpot", SEED) is None
    assert spread(times([1.0, 2.0], ttft=None), "ttft", SEED) is None


def test_the_seed_decides():
    some = times(np.geomspace(1, 9, 50))
    assert spread(some, "tpot", 1) == spread(some, "tpot", 1)
    assert spread(some, "tpot", 1) != spread(some, "tpot", 2)
