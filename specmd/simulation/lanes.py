"""Lanes: what carries experts in a timed simulation, each with a queue of prefetches and a clock.

A transfer is moved in chunks. A demand interrupts a prefetch at its next chunk boundary, so it
waits for at most one chunk; what was interrupted resumes first, where it stopped. Every key belongs
to a lane; one lane, the host link of one device, carries all of them today.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np

from specmd.core.event import FloatArray, IntArray, KeyArray
from specmd.core.state import Core, land
from specmd.simulation.costs import CostCoefficients

IDLE = -1


class Lanes(NamedTuple):
    """Times are absolute seconds. Lane n queues at `queue[n * keys:n * keys + queued[n]]`."""

    costs: CostCoefficients
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
    keys: int
    by_score: int


def make_lanes(num_keys: int, costs: CostCoefficients, *, by_score: bool, lanes: int = 1) -> Lanes:
    """Build idle lanes; the keys are the first one's."""
    seconds, numbers = np.zeros(num_keys), np.zeros(num_keys, np.int64)
    each = np.zeros(lanes)
    return Lanes(
        costs=costs,
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
        keys=num_keys,
        by_score=int(by_score),
    )


def begin_s(lanes: Lanes, lane: int, asked_s: float) -> float:
    """When a transfer asked for at a time begins: at once on a busy lane, an idle one must wake."""
    free_s = lanes.free_s[lane]
    return free_s if free_s >= asked_s else asked_s + lanes.costs.wake_s


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


def start_next(lanes: Lanes, lane: int) -> bool:
    """Have something under way: a started one first, then by score or in order of issue."""
    if lanes.under_way[lane] != IDLE:
        return True
    if lanes.queued[lane] == 0:
        return False
    first = lane * lanes.keys
    best = 0
    if lanes.by_score and lanes.started[lanes.queue[first]] == 0:
        for i in range(1, lanes.queued[lane]):
            if lanes.score[lanes.queue[first + i]] > lanes.score[lanes.queue[first + best]]:
                best = i
    key = lanes.queue[first + best]
    unqueue(lanes, lane, best)
    lanes.under_way[lane] = key
    lanes.started[key] = 1
    lanes.begun_s[lane] = begin_s(lanes, lane, lanes.issued_s[key])
    return True


def end_s(lanes: Lanes, lane: int) -> float:
    """When what is under way will have arrived."""
    return lanes.begun_s[lane] + lanes.remaining_s[lanes.under_way[lane]]


def finish(lanes: Lanes, core: Core, lane: int, at_s: float) -> None:
    """Land what is under way."""
    key = lanes.under_way[lane]
    carry(lanes, lane, lanes.begun_s[lane], at_s)
    lanes.under_way[lane] = IDLE
    land(core, key)


def advance(lanes: Lanes, core: Core, lane: int, now_s: float) -> None:
    """Land what has arrived by now; what is next is under way."""
    while start_next(lanes, lane):
        at_s = end_s(lanes, lane)
        if at_s > now_s:
            break
        finish(lanes, core, lane, at_s)


def interrupt(lanes: Lanes, core: Core, lane: int, now_s: float) -> None:
    """Interrupt the prefetch under way at its next chunk boundary."""
    key = lanes.under_way[lane]
    chunk_s = lanes.costs.chunk_bytes / lanes.costs.bytes_per_s
    left = end_s(lanes, lane) - now_s
    # Chunks are counted from the end: the last one ends with the transfer.
    stays = (
        min(max(0.0, ceil(left / chunk_s) - 1.0) * chunk_s, lanes.remaining_s[key])
        if chunk_s > 0.0
        else 0.0
    )
    boundary_s = end_s(lanes, lane) - stays
    if stays <= 0.0:
        finish(lanes, core, lane, boundary_s)
        return
    carry(lanes, lane, lanes.begun_s[lane], boundary_s)
    lanes.remaining_s[key] = stays
    lanes.issued_s[key] = boundary_s
    lanes.under_way[lane] = IDLE
    first = lane * lanes.keys
    for i in range(first + lanes.queued[lane], first, -1):
        lanes.queue[i] = lanes.queue[i - 1]
    lanes.queue[first] = key
    lanes.queued[lane] += 1
