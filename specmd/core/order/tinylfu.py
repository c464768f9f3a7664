"""A segmented LRU behind a window, and the contest for leaving it: W-TinyLFU, fixed or adaptive.

G. Einziger, R. Friedman, B. Manes, "TinyLFU: a highly efficient cache admission policy", ACM
Transactions on Storage 13(4), 2017. Keys are few and dense here, so each has a counter of its own
where the paper needs a sketch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.core.event import NOBODY, Event, IntArray, World
from specmd.core.order.queues import length, move, older, oldest
from specmd.core.order.segments import PROBATION, PROTECTED, WINDOW, Segments, make_segments
from specmd.core.state import Core

MOST = 15  # a counter of four bits
SAMPLE = 10  # counters are halved after so many uses for each slot


class TinyLFU(NamedTuple):
    """The segments, and how often keys were used of late, resident or not."""

    segments: Segments
    count: IntArray  # type: ignore[assignment]  # (keys,)
    seen: IntArray  # (1,) uses counted
    sample: int


def make_tinylfu(world: World, window: float, protected: float) -> TinyLFU:
    """Build the empty segments; a window and protected keys have these shares of the slots."""
    count, seen = np.zeros(world.num_keys, np.int64), np.zeros(1, np.int64)
    sample = SAMPLE * max(1, int(world.capacity.sum()))
    return TinyLFU(make_segments(world, window, protected), count, seen, sample)


def count_uses(tiny: TinyLFU, event: Event) -> None:
    """Count the uses of an event; halve all counters when there were enough."""
    for i in range(event.start, event.stop):
        key = event.keys[i]
        tiny.count[key] = min(tiny.count[key] + 1, MOST)
        tiny.seen[0] += 1
        if tiny.seen[0] % tiny.sample == 0:
            for other in range(len(tiny.count)):
                tiny.count[other] //= 2


def contest(tiny: TinyLFU, pool: int, core: Core) -> int:
    """Find who leaves: the oldest of a full window, or whom it beats, the oldest on probation.

    The winner goes on probation. What is held waits for its contest in the window.
    """
    queues, count = tiny.segments.queues, tiny.count
    main = older(queues, pool, PROBATION, PROTECTED, core)
    full = length(queues, pool, WINDOW) >= tiny.segments.window[pool]
    key = oldest(queues, pool, WINDOW, core)
    if key != NOBODY and (main == NOBODY or (full and count[key] <= count[main])):
        return key
    if key != NOBODY and full:
        move(queues, pool, key, PROBATION)
    return main
