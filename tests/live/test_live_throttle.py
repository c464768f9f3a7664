"""The pace of a throttled link, on a clock that is told what to say."""

import pytest

from specmd.errors import SpecmdError
from specmd.live.links import throttle as module
from specmd.live.links.throttle import Throttle


@pytest.fixture
def clock(monkeypatch):
    """Sleeping moves the clock on, and oversleeps by a tenth of a millisecond."""
    now = [100.0]

    def sleep(seconds):
        now[0] += seconds + 1e-4

    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(module.time, "sleep", sleep)
    return now


def move(link, num_bytes, *, busy, first=True):
    link.pace(link.begin(first, busy=busy), num_bytes)


def test_transfers_that_wait_for_each_other_keep_the_pace_whatever_a_sleep_adds(clock):
    link = Throttle(1e6, 1e-3)
    for number in range(50):
        move(link, 2_000, busy=number > 0)
    assert clock[0] - 100.0 == pytest.approx(50 * 3e-3, abs=2e-4)


def test_an_idle_link_saves_nothing_up(clock):
    """A pause, however short, is not made good by a faster transfer after it."""
    link = Throttle(1e6, 0.0)
    move(link, 2_000, busy=False)
    clock[0] += 1e-3
    asked = clock[0]
    move(link, 2_000, busy=False)
    assert clock[0] - asked >= 2e-3


def test_the_latency_is_of_a_transfer_and_not_of_its_chunks(clock):
    link = Throttle(1e6, 5e-3)
    move(link, 1_000, busy=False)
    for _ in range(3):
        move(link, 1_000, busy=True, first=False)
    assert clock[0] - 100.0 == pytest.approx(5e-3 + 4e-3, abs=2e-4)


@pytest.mark.parametrize("pace", [(0.0, 0.0), (-1.0, 0.0), (1.0, -1.0), (float("nan"), 0.0)])
def test_no_such_pace(pace):
    with pytest.raises(SpecmdError, match="throttle"):
        Throttle(*pace)
