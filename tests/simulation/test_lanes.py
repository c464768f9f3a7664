"""Lanes by themselves: several carry side by side, each in its own order."""

from types import SimpleNamespace

import pytest

from specmd.core.state import LOADING, READY
from specmd.policy.schedule import Schedule
from specmd.simulation.costs import CostCoefficients
from specmd.simulation.lanes import IDLE, advance, enqueue, interrupt, make_lanes, take

COSTS = CostCoefficients(**dict.fromkeys(CostCoefficients._fields, 0.0))._replace(
    bytes_per_s=1.0, chunk_bytes=1.0
)
KEYS = 6


def two_lanes():
    """Even keys on lane 0, odd ones on lane 1; all loading."""
    lanes = make_lanes(KEYS, COSTS, Schedule(False, False, False), lanes=2)
    lanes.lane[:] = [key % 2 for key in range(KEYS)]
    return lanes, SimpleNamespace(state=[LOADING] * KEYS, hold=[1] * KEYS)


def there(core):
    return {key for key, state in enumerate(core.state) if state == READY}


def test_lanes_carry_side_by_side():
    lanes, core = two_lanes()
    for key in (0, 2, 1, 3):
        enqueue(lanes, key, 0.0, 0.0, 2.0)
    for now_s, landed in ((1.0, set()), (2.0, {0, 1}), (3.9, {0, 1}), (4.0, {0, 1, 2, 3})):
        for lane in range(2):
            advance(lanes, core, lane, now_s)
        assert there(core) == landed
    assert lanes.busy_s.tolist() == [4.0, 4.0]
    assert lanes.under_way.tolist() == [IDLE, IDLE]


def test_one_lane_is_interrupted_the_other_goes_on():
    lanes, core = two_lanes()
    for key in (0, 1, 3, 5):
        enqueue(lanes, key, 0.0, 0.0, 3.0)
    take(lanes, 5)
    for lane in range(2):
        advance(lanes, core, lane, 0.5)
    interrupt(lanes, core, 0, 0.5)  # at the chunk's end
    assert lanes.free_s[0] == pytest.approx(1.0)
    assert lanes.remaining_s[0] == pytest.approx(2.0)
    assert lanes.queue[0] == 0
    for lane in range(2):
        advance(lanes, core, lane, 3.0)
    assert there(core) == {0, 1}
    assert lanes.under_way.tolist() == [IDLE, 3]
