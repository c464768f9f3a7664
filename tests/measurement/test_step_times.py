"""Steps and their parts, on a clock that is told what to say."""

import numpy as np
import pytest

from specmd.live import timing as step_times
from specmd.live.timing import StepTimes
from specmd.runs.metrics import PARTS
from specmd.runs.timeline import Timeline

PART = {name: index for index, name in enumerate(PARTS)}


@pytest.fixture
def clock(monkeypatch):
    """Time is `clock[0]`; totals of (deciding, demand stall, late stall) are `clock[1]`."""
    now = [0.0, (0.0, 0.0, 0.0)]
    monkeypatch.setattr(step_times.time, "perf_counter", lambda: now[0])
    return now


def totals(clock):
    return dict(zip(("overhead", "demand_stall", "late_prefetch_stall"), clock[1], strict=True))


def test_a_step_lasts_until_the_next_one_begins_and_its_parts_add_up(clock):
    times = StepTimes(lambda: totals(clock))
    clock[0] = 1.0
    times.begin()
    clock[0], clock[1] = 4.0, (0.5, 1.0, 0.25)
    times.leave()
    clock[0] = 4.75
    times.begin()
    clock[0] = 5.0
    times.leave()
    times.end()
    first, second = times.seconds()
    assert first.sum() == pytest.approx(3.75)
    assert first[PART["demand_stall"]] == pytest.approx(1.0)
    assert first[PART["late_prefetch_stall"]] == pytest.approx(0.25)
    assert first[PART["overhead"]] == pytest.approx(0.5 + 0.75)  # deciding, and between two passes
    assert first[PART["compute"]] == pytest.approx(3.75 - 1.0 - 0.25 - 1.25)
    assert second.tolist() == pytest.approx([0.25] + [0] * (len(PARTS) - 1))


def test_a_dropped_step_leaves_nothing_and_a_second_end_does_nothing(clock):
    times = StepTimes(lambda: totals(clock))
    times.begin()
    times.drop()
    times.end()
    times.begin()
    clock[0] = 1.0
    times.end()
    times.end()
    assert times.seconds().shape == (1, len(PARTS))
    times.restart()
    assert times.seconds().shape == (0, len(PARTS))


def test_stalls_longer_than_the_step_leave_no_negative_computing(clock):
    """Device clocks and the host's may disagree by a little."""
    times = StepTimes(lambda: totals(clock))
    times.begin()
    clock[0], clock[1] = 1.0, (0.0, 1.5, 0.0)
    times.end()
    assert (times.seconds() >= 0).all()


def test_steps_are_on_the_timeline(clock):
    timeline = Timeline(experts=4)
    times = StepTimes(lambda: totals(clock), timeline)
    times.begin()
    clock[0] = 2.0
    times.end()
    (span,) = (event for event in timeline.events() if event["ph"] == "X")
    assert (span["name"], span["ts"], span["dur"]) == ("step 0", 0, 2e6)
    assert np.isclose(times.seconds().sum(), 2.0)
