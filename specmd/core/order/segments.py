"""A segmented LRU, behind a window or none: what SLRU and W-TinyLFU share.

A key enters the window; from there it goes on probation, and by a use there it becomes protected.
What there is no room for among the protected goes back on probation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.core.event import IntArray, World
from specmd.core.order.queues import USED, Queues, first_use, length, make_queues, move, move_oldest

WINDOW, PROBATION, PROTECTED = range(3)


class Segments(NamedTuple):
    """Three queues a pool, and how many keys the first and the last of them should have."""

    queues: Queues
    window: IntArray  # (pools,)
    protected: IntArray  # (pools,)
    slots: IntArray  # (pools,)
    share: float  # of what is not window, protected


def make_segments(world: World, window: float, protected: float) -> Segments:
    """Build the empty segments.

    The window has a share of the slots, one at least, or none at all where that is 0; `protected`
    is a share of the rest, one at least, and one less than the rest at most.
    """
    none = np.zeros(world.pools, np.int64)
    segments = Segments(make_queues(world, 3), none, none.copy(), world.capacity, protected)
    set_window(segments, window)
    return segments


def set_window(segments: Segments, window: float) -> None:
    """Give the window a share of the slots; the limit of the protected follows."""
    for pool in range(len(segments.slots)):
        size = max(int(segments.slots[pool] * window), int(window > 0.0))
        rest = max(segments.slots[pool] - size, 0)
        segments.window[pool] = size
        segments.protected[pool] = min(max(1, int(rest * segments.share)), max(rest - 1, 0))


def enter_window(segments: Segments, pool: int, key: int, more: int) -> None:
    """Let a key in; the oldest of the window goes on probation if it has so many keys too many."""
    move(segments.queues, pool, key, WINDOW)
    if length(segments.queues, pool, WINDOW) > segments.window[pool] + more:
        move_oldest(segments.queues, pool, WINDOW, PROBATION)


def use_segment(segments: Segments, pool: int, key: int) -> None:
    """Move a used key to the front: of the window if there, else of the protected.

    The first use of a prefetched key is no second one: it does not lead to another segment.
    """
    queues = segments.queues
    again = first_use(queues, key) == USED
    target = PROTECTED if again and queues.where[key] != WINDOW else queues.where[key]
    move(queues, pool, key, target)
    if length(queues, pool, PROTECTED) > segments.protected[pool]:
        move_oldest(queues, pool, PROTECTED, PROBATION)
