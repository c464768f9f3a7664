"""Lanes: what carries experts in a timed simulation, each with a queue of prefetches and a clock.

A transfer is moved in chunks. A demand interrupts a prefetch at its next chunk boundary, so it
waits for at most one chunk; what was interrupted resumes first, where it stopped. Every key belongs
to a lane: to the host link of one device, unless a disk lies behind it (`specmd.simulation.chain`).
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np

from specmd.core.event import FloatArray, IntArray, KeyArray
from specmd.core.state import Core, land
from specmd.policy.schedule import Schedule
from specmd.simulation.costs import CostCoefficients

IDLE = -1


class Lanes(NamedTuple):
    """Times are absolute seconds. Lane n queues at `queue[n * keys:n * keys + queued[n]]`."""

    chunk_s: FloatArray  # (lanes,) a prefetch yields to a demand at multiples of this
    wake_s: FloatArray  # (lanes,) on top, for the first transfer after a pause
    lane: IntArray  # (keys,) that carries the key
    free_s: FloatArray  # (lanes,) when the last transfer ended
    begun_s: FloatArray  # (lanes,) when what is under way began, or resumed
    busy_s: FloatArray  # (lanes,) time spent carrying
    queued: IntArray  # (lanes,)
    under_way: IntArray  # (lanes,) key of the prefetch under way, or IDLE
    queue: KeyArray  # (lanes * keys,) prefetches not under way, in order of issue
    score: FloatArray  # (keys,)
    issued_s: FloatArray  # (keys,) when the prefetch was issued, or interrupted
    remaining_s: FloatArray  # (keys,) of transfer
    started: IntArray  # (keys,) 1 once bytes have moved
    due: IntArray  # (keys,) clock of the event the prefetch is meant for
    rest: FloatArray  # (lanes,) seconds without a prefetch after one, for each second it took
    rested_s: FloatArray  # (lanes,) before which no prefetch begins
    keys: int
    by_score: int
    by_deadline: int


def make_lanes(
    num_keys: int,
    costs: CostCoefficients,
    schedule: Schedule,
    *,
    lanes: int = 1,
    disk: bool = False,
) -> Lanes:
    """Build idle lanes; the keys are the first one's. With `disk` one more lane reads from it.

    Prefetches take their share of the lane on which they begin, the last.
    """
    chunk_s = [costs.chunk_bytes / costs.bytes_per_s] * lanes
    wake_s = [costs.wake_s] * lanes
    if disk:
        chunk_s.append(costs.chunk_bytes * costs.disk_s_per_byte)
        wake_s.append(0.0)
    seconds, numbers = np.zeros(num_keys), np.zeros(num_keys, np.int64)
    lanes = len(chunk_s)
    each = np.zeros(lanes)
    return Lanes(
        chunk_s=np.array(chunk_s),
        wake_s=np.array(wake_s),
        lane=numbers.copy(),
        free_s=each.copy(),
        begun_s=each.copy(),
        busy_s=each.copy(),
        queued=np.zeros(lanes, np.int64),
        under_way=np.full(lanes, IDLE, np.int64),
        queue=np.zeros(lanes * num_keys, np.uint32),
        score=seconds.copy(),
        issued_s=seconds.copy(),
        remaining_s=seconds.copy(),
        started=numbers.copy(),
        due=numbers.copy(),
        rest=np.append(each[1:], 1.0 / schedule.share - 1.0),
        rested_s=each.copy(),
        keys=num_keys,
        by_score=int(schedule.by_score),
        by_deadline=int(schedule.by_deadline),
    )


def begin_s(lanes: Lanes, lane: int, asked_s: float) -> float:
    """When a transfer asked for at a time begins: at once on a busy lane, an idle one must wake."""
    free_s = lanes.free_s[lane]
    return free_s if free_s >= asked_s else asked_s + lanes.wake_s[lane]


def carry(lanes: Lanes, lane: int, start_s: float, finish_s: float) -> None:
    """Account for a transfer, or a part of one."""
    lanes.busy_s[lane] += finish_s - start_s
    lanes.free_s[lane] = finish_s


def enqueue(lanes: Lanes, key: int, score: float, now_s: float, seconds: float) -> None:
    """Queue a prefetch."""
    lane = lanes.lane[key]
    lanes.score[key] = score
    lanes.issued_s[key] = now_s
    lanes.remaining_s[key] = seconds
    lanes.started[key] = 0
    lanes.queue[lane * lanes.keys + lanes.queued[lane]] = key
    lanes.queued[lane] += 1


def unqueue(lanes: Lanes, lane: int, position: int) -> None:
    """Remove the entry at a position of a lane's queue."""
    first = lane * lanes.keys
    lanes.queued[lane] -= 1
    for i in range(first + position, first + lanes.queued[lane]):
        lanes.queue[i] = lanes.queue[i + 1]


def take(lanes: Lanes, key: int) -> None:
    """Remove a key from its lane's queue."""
    lane = lanes.lane[key]
    position = 0
    while lanes.queue[lane * lanes.keys + position] != key:
        position += 1
    unqueue(lanes, lane, position)


def start_next(lanes: Lanes, lane: int, until_s: float) -> bool:
    """Have something under way: a started one first, then the best; False if nothing is by then."""
    if lanes.under_way[lane] != IDLE:
        return True
    if lanes.queued[lane] == 0 or rests(lanes, lane, until_s):
        return False
    begin(lanes, lane, best(lanes, lane))
    return True


def best(lanes: Lanes, lane: int) -> int:
    """Return the position in a lane's queue of what goes next."""
    first = lane * lanes.keys
    found = 0
    if lanes.started[lanes.queue[first]] == 0:
        for i in range(1, lanes.queued[lane]):
            if goes_before(lanes, lanes.queue[first + i], lanes.queue[first + found]):
                found = i
    return found


def goes_before(lanes: Lanes, key: int, other: int) -> bool:
    """Tell whether a prefetch goes before one that was issued earlier."""
    if lanes.by_deadline and lanes.due[key] != lanes.due[other]:
        return bool(lanes.due[key] < lanes.due[other])
    return bool(lanes.by_score and lanes.score[key] > lanes.score[other])


def begin(lanes: Lanes, lane: int, position: int) -> None:
    """Have the entry at a position of an idle lane's queue under way."""
    key = lanes.queue[lane * lanes.keys + position]
    unqueue(lanes, lane, position)
    lanes.under_way[lane] = key
    lanes.started[key] = 1
    lanes.begun_s[lane] = max(begin_s(lanes, lane, lanes.issued_s[key]), lanes.rested_s[lane])


def end_s(lanes: Lanes, lane: int) -> float:
    """When what is under way will have arrived."""
    return lanes.begun_s[lane] + lanes.remaining_s[lanes.under_way[lane]]


def finish(lanes: Lanes, core: Core, lane: int, at_s: float) -> None:
    """Land what is under way."""
    key = lanes.under_way[lane]
    carry(lanes, lane, lanes.begun_s[lane], at_s)
    let_rest(lanes, lane, at_s)
    lanes.under_way[lane] = IDLE
    land(core, key)


def rests(lanes: Lanes, lane: int, until_s: float) -> bool:
    """Tell whether no prefetch may begin before a time is past."""
    return bool(lanes.rest[lane] > 0.0 and lanes.rested_s[lane] > until_s)


def let_rest(lanes: Lanes, lane: int, at_s: float) -> None:
    """Leave the lane to demands for a while, after a prefetch or a part of one."""
    lanes.rested_s[lane] = at_s + (at_s - lanes.begun_s[lane]) * lanes.rest[lane]


def advance(lanes: Lanes, core: Core, lane: int, now_s: float) -> None:
    """Land what has arrived by now; what is next is under way."""
    while start_next(lanes, lane, now_s):
        at_s = end_s(lanes, lane)
        if at_s > now_s:
            break
        finish(lanes, core, lane, at_s)


def interrupt(lanes: Lanes, core: Core, lane: int, now_s: float) -> None:
    """Interrupt the prefetch under way at its next chunk boundary."""
    stays = rest_s(lanes, lane, now_s)
    if stays > 0.0:
        put_off(lanes, lane, stays)
    else:
        finish(lanes, core, lane, end_s(lanes, lane))


def rest_s(lanes: Lanes, lane: int, now_s: float) -> float:
    """Seconds that are left of what is under way, interrupted at its next chunk boundary."""
    chunk_s = lanes.chunk_s[lane]
    if chunk_s <= 0.0:
        return 0.0
    left = end_s(lanes, lane) - now_s
    # Chunks are counted from the end: the last one ends with the transfer.
    return min(
        max(0.0, ceil(left / chunk_s) - 1.0) * chunk_s, lanes.remaining_s[lanes.under_way[lane]]
    )


def put_off(lanes: Lanes, lane: int, stays: float) -> None:
    """Queue what is under way again, before all others, with so many seconds left."""
    key = lanes.under_way[lane]
    boundary_s = end_s(lanes, lane) - stays
    carry(lanes, lane, lanes.begun_s[lane], boundary_s)
    let_rest(lanes, lane, boundary_s)
    lanes.remaining_s[key] = stays
    lanes.issued_s[key] = boundary_s
    lanes.under_way[lane] = IDLE
    first = lane * lanes.keys
    for i in range(first + lanes.queued[lane], first, -1):
        lanes.queue[i] = lanes.queue[i - 1]
    lanes.queue[first] = key
    lanes.queued[lane] += 1
