"""What computing loses, told apart by plays whose losses are known."""

import pytest

from specmd.calibration.losses import Losses, Play, split_losses

TRUTH = Losses(resume_s=1e-3, transfer_s=5e-5, predict_s=1e-4)


def play(waits, prefetches=0, events=0, truth=TRUTH):
    lost = truth.resume_s * waits + truth.transfer_s * prefetches + truth.predict_s * events
    return Play(lost, waits, prefetches, events)


def test_three_plays_tell_three_losses_apart():
    found = split_losses(play(800), play(0, 0, 800), play(100, 1200, 800))
    assert found.resume_s == pytest.approx(TRUTH.resume_s)
    assert found.transfer_s == pytest.approx(TRUTH.transfer_s)
    assert found.predict_s == pytest.approx(TRUTH.predict_s)


def test_without_a_prefetcher_nothing_is_said_of_prefetching():
    assert split_losses(play(800), None, None) == Losses(pytest.approx(1e-3), 0, 0)


@pytest.mark.parametrize("faster", [-1.0, 0.0])
def test_plays_faster_than_the_resident_one_lose_nothing(faster):
    found = split_losses(Play(faster, 9, 0, 9), Play(faster, 0, 0, 9), Play(faster, 1, 9, 9))
    assert found == Losses(0, 0, 0)


def test_what_waits_explain_is_not_charged_to_prefetches():
    assert split_losses(play(800), play(0, 0, 800), play(700, 0, 800)).transfer_s == 0


def test_where_the_host_does_not_wait_nothing_is_charged_for_waiting():
    found = split_losses(Play(0.5, 0, 0, 800), Play(0.08, 0, 0, 800), Play(0.2, 0, 1200, 800))
    assert found.resume_s == 0
    assert found.transfer_s == pytest.approx((0.2 - 0.08) / 1200)
