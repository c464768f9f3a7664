"""A profile is refused, with a reason, unless it predicts plays that it was not fitted to."""

import numpy as np
import pytest

from specmd.calibration import check as module
from specmd.calibration.check import check
from specmd.calibration.plays import Play, Way
from specmd.hardware.profile import load_profile
from specmd.runs.metrics import PARTS
from specmd.trace import synthetic

WAYS = [Way("all_resident"), Way("none_resident_paced", 8), Way("half_resident_paced", 99)]


@pytest.fixture
def trace():
    return synthetic(num_requests=1, prompt_length=4, decode_length=6, seed=5, expert_bytes=1000)


@pytest.fixture
def checked(trace, monkeypatch):
    """Check plays whose simulation says: every step takes a second."""

    def simulated(way, trace, profile, shape):
        seconds = np.zeros((trace.num_steps, len(PARTS)))
        seconds[:, 0] = 1.0
        return seconds

    monkeypatch.setattr(module, "simulate", simulated)

    def run(*rounds, share=1.0, missing=0, disturbed=()):
        """Each round: what a step takes in it, by way or for all."""
        plays = []
        for each in rounds:
            seconds = dict.fromkeys((way.name for way in WAYS), each)
            seconds = (
                seconds if isinstance(each, float) else {**dict.fromkeys(seconds, 1.0), **each}
            )
            plays.append(
                {
                    way.name: Play(
                        way, trace, simulated(way, trace, None, None) * seconds[way.name],
                        0.0, 0, 0, 0, share,
                    )
                    for way in WAYS
                }
            )  # fmt: skip
        profile = load_profile("t4")
        return check(profile, None, plays, WAYS, missing=missing, disturbed=disturbed)

    return run


def test_what_is_predicted_is_accepted(checked):
    found = checked(1.0, 1.0, 1.0)
    assert (found.accepted, found.reason, found.rounds) == (True, "", 3)
    assert len(found.errors) == 2 * len(WAYS)
    assert list(found.errors.values()) == pytest.approx([0.0] * 6)


def test_one_uneven_round_is_outvoted(checked):
    found = checked(1.0, {"half_resident_paced": 4.0}, 1.0)
    assert found.accepted
    assert found.errors["half_resident_paced_tpot"] == pytest.approx(0.0)


@pytest.mark.parametrize("way", [way.name for way in WAYS])
def test_a_play_that_is_predicted_badly_refuses_it(checked, way):
    found = checked(*[{way: 1.25}] * 3)
    assert not found.accepted
    assert found.errors[f"{way}_tpot"] == pytest.approx(-0.2)
    assert f"'{way.replace('_', ' ')}' is simulated -20.0% off, 10% are allowed" in found.reason


def test_rounds_that_differ_refuse_it(checked):
    found = checked(0.6, 1.0, 1.4)
    assert "the machine is uneven: rounds differ by 40%, 20% are allowed" in found.reason


def test_a_busy_machine_refuses_it_and_says_how_busy(checked):
    found = checked(1.0, share=0.5, missing=3, disturbed=(0.5, 0.61, 0.4))
    assert "too busy: in 3 rounds the computing thread was given 40% to 61%" in found.reason
    assert found.core_share == pytest.approx(0.5)


def test_a_refused_profile_says_so_wherever_it_is_used(checked):
    refused = checked(2.0, 2.0, 2.0)
    profile = load_profile("t4").model_copy(update={"calibrated": True, "check": refused})
    (warning,) = profile.warnings()
    assert warning == f"profile 't4' failed its calibration: {refused.reason}"
