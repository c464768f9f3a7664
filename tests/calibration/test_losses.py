"""What computing loses, told apart by plays whose losses are known."""

import itertools

import numpy as np
import pytest

from specmd.calibration.losses import (
    FETCHED,
    PARTLY,
    PREDICTED,
    RESIDENT,
    WAITED,
    Losses,
    fit_losses,
    limits,
)  # fmt: skip
from specmd.calibration.plays import Play, Way

TRUTH = Losses(resume_s=1e-3, fetch_s=2e-4, predict_s=1e-4, transfer_s=5e-5)
NO_LIMIT = Losses(1.0, 1.0, 1.0, 1.0)
LAYERS = 8
# Per step: (layers that waited, copies waited for, layers looked ahead from, prefetches).
COUNTS = {
    RESIDENT: [(0, 0, 0, 0)] * 4,
    WAITED: [(8, 128, 0, 0), (8, 32, 0, 0), (8, 32, 0, 0), (8, 32, 0, 0)],
    PARTLY: [(8, 120, 0, 0), (6, 10, 0, 0), (5, 12, 0, 0), (7, 9, 0, 0)],
    PREDICTED: [(0, 0, 8, 0)] * 4,
    FETCHED: [(8, 60, 8, 30), (2, 3, 8, 20), (3, 4, 8, 25), (1, 1, 8, 18)],
}
KNOWN_S = {way: 0.01 * number for number, way in enumerate(COUNTS, 1)}  # what a simulation explains


def lost(way, losses):
    order = (losses.resume_s, losses.fetch_s, losses.predict_s, losses.transfer_s)
    return np.array(COUNTS[way]) @ np.array(order)


def simulated(play, losses):
    return KNOWN_S[play.way.name] + lost(play.way.name, losses)


def play(way, truth=TRUTH, extra_s=0.0):
    seconds = np.zeros((4, 5))
    seconds[:, 0] = KNOWN_S[way] + lost(way, truth) + extra_s
    waits = sum(row[0] for row in COUNTS[way])
    return Play(Way(way), None, seconds, 0.0, waits, 0, 4 * LAYERS, 1.0)


def rounds(count=3, **options):
    return [{way: play(way, **options) for way in COUNTS} for _ in range(count)]


def values(losses):
    return [losses.resume_s, losses.fetch_s, losses.predict_s, losses.transfer_s]


def test_plays_tell_the_losses_apart():
    found = fit_losses(rounds(), simulated, NO_LIMIT)
    assert values(found) == pytest.approx(values(TRUTH), rel=1e-6)


def test_one_bad_round_of_three_changes_nothing():
    """Added up, a pause of seconds in one round of three made a TPOT of two seconds of 50 ms."""
    plays = rounds()
    plays[1][WAITED] = play(WAITED, extra_s=9.0)
    found = fit_losses(plays, simulated, NO_LIMIT)
    assert values(found) == pytest.approx(values(TRUTH), rel=1e-6)


def test_a_machine_that_drifts_from_round_to_round_changes_nothing():
    plays = [
        {way: play(way, extra_s=drift) for way in COUNTS} for drift in (0.0, 0.02, 0.05)
    ]  # within a round all plays drift alike
    found = fit_losses(plays, simulated, NO_LIMIT)
    assert values(found) == pytest.approx(values(TRUTH), rel=0.1)


def test_no_loss_exceeds_its_limit():
    limit = limits(layer_s=8e-4, top_k=4)
    assert values(limit) == pytest.approx([1.6e-3, 2e-4, 8e-4, 2e-4])
    found = fit_losses(rounds(extra_s=0.0, truth=Losses(0.3, 0.3, 0.3, 0.3)), simulated, limit)
    assert values(found) == values(limit)


def test_without_a_prefetcher_nothing_is_said_of_prefetching():
    plays = [{way: each[way] for way in (RESIDENT, WAITED, PARTLY)} for each in rounds()]
    found = fit_losses(plays, simulated, NO_LIMIT)
    assert values(found) == pytest.approx([TRUTH.resume_s, TRUTH.fetch_s, 0, 0], rel=1e-6)


def test_plays_faster_than_they_are_simulated_lose_nothing():
    plays = rounds(truth=Losses())
    for each, way in itertools.product(plays, COUNTS):
        if way != RESIDENT:
            each[way] = play(way, truth=Losses(), extra_s=-0.009)
    assert values(fit_losses(plays, simulated, NO_LIMIT)) == [0, 0, 0, 0]


def test_where_the_host_does_not_wait_nothing_is_charged_for_waiting():
    plays = [
        {name: Play(p.way, None, p.seconds, 0.0, 0, 0, 32, None) for name, p in each.items()}
        for each in rounds()
    ]
    found = fit_losses(plays, simulated, NO_LIMIT)
    assert values(found)[:2] == [0, 0]
    assert found.transfer_s > 0
