"""What computing loses, told apart by plays whose losses are known."""

import pytest

from specmd.calibration.losses import Losses, Play, split_losses

TRUTH = Losses(resume_s=2e-4, transfer_s=5e-5, predict_s=1e-4)


def play(waits, transfers, events=0, truth=TRUTH):
    lost = truth.resume_s * waits + truth.transfer_s * transfers + truth.predict_s * events
    return Play(lost, waits, transfers, events)


def test_three_plays_tell_three_losses_apart():
    found = split_losses(play(900, 1000), Play(0.08, 0, 0, 800), play(100, 1200, 800))
    assert found.resume_s == pytest.approx(TRUTH.resume_s)
    assert found.transfer_s == pytest.approx(TRUTH.transfer_s)
    assert found.predict_s == pytest.approx(TRUTH.predict_s)


def test_without_a_prefetcher_waits_bear_it_all():
    found = split_losses(play(900, 1000), None, None)
    assert found.resume_s == pytest.approx((2e-4 * 900 + 5e-5 * 1000) / 900)
    assert (found.transfer_s, found.predict_s) == (0, 0)


@pytest.mark.parametrize("faster", [-1.0, 0.0])
def test_plays_faster_than_the_resident_one_lose_nothing(faster):
    found = split_losses(Play(faster, 9, 9, 9), Play(faster, 0, 0, 9), Play(faster, 1, 9, 9))
    assert found == Losses(0, 0, 0)


def test_noise_never_makes_a_loss_negative_nor_charges_twice():
    """The prefetching play lost nothing: then copies cost nothing, and waits bear the rest."""
    found = split_losses(play(900, 1000), Play(0.0, 0, 0, 800), Play(-0.5, 100, 1200, 800))
    assert found.transfer_s == 0
    assert found.resume_s * 900 == pytest.approx(play(900, 1000).lost_s)


def test_where_the_host_does_not_wait_transfers_bear_it():
    found = split_losses(play(0, 1000), Play(0.08, 0, 0, 800), play(0, 1200, 800))
    assert found.resume_s == 0
    assert found.transfer_s == pytest.approx(TRUTH.transfer_s)
