"""Keys in order of their last touch, as a log of touches read from its old end.

A touch appends the key to a ring and remembers where; older entries of the key become stale and
are skipped when the old end reaches them. So a touch is two stores and no dependent load, which a
linked list cannot match, and each entry is read once. When the ring is full it is rewritten
without its stale entries; it is at least four times as long as there are keys.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy.event import NOBODY, IntArray, KeyArray
from specmd.residency import Core, evictable


class Touches(NamedTuple):
    """Pool p owns the ring `entry[p * length : (p + 1) * length]`; positions count up for ever."""

    entry: KeyArray  # (pools * length,)
    position: IntArray  # (keys,) of the latest entry; -1 for a key that is not resident
    clock: IntArray  # (keys,) of the latest touch
    head: IntArray  # (pools,) position of the oldest entry not yet known to be stale
    tail: IntArray  # (pools,) position of the next entry
    length: int


def make_touches(num_keys: int, pools: int) -> Touches:
    """Build empty logs."""
    length = 1 << int(4 * num_keys // pools).bit_length()
    return Touches(
        np.zeros(pools * length, np.uint32),
        np.full(num_keys, -1, np.int64),
        np.zeros(num_keys, np.int64),
        np.zeros(pools, np.int64),
        np.zeros(pools, np.int64),
        length,
    )


def touch(touches: Touches, pool: int, key: int, clock: int) -> None:
    """Make a key the latest one touched."""
    tail = touches.tail[pool]
    if tail - touches.head[pool] == touches.length:
        rewrite(touches, pool)
        tail = touches.tail[pool]
    touches.entry[pool * touches.length + (tail & (touches.length - 1))] = key
    touches.position[key] = tail
    touches.clock[key] = clock
    touches.tail[pool] = tail + 1


def forget(touches: Touches, key: int) -> None:
    """Take a key out."""
    touches.position[key] = -1


def rewrite(touches: Touches, pool: int) -> None:
    """Drop the stale entries of a ring."""
    base, last = pool * touches.length, touches.length - 1
    tail = touches.tail[pool]
    kept = touches.head[pool]
    for position in range(touches.head[pool], tail):
        key = touches.entry[base + (position & last)]
        if touches.position[key] == position:
            touches.entry[base + (kept & last)] = key
            touches.position[key] = kept
            kept += 1
    touches.tail[pool] = kept


def oldest_evictable(touches: Touches, pool: int, core: Core) -> int:
    """Find the evictable key touched longest ago; of equal touches, the largest key."""
    base, last = pool * touches.length, touches.length - 1
    tail = touches.tail[pool]
    position = touches.head[pool]
    while position < tail:
        key = touches.entry[base + (position & last)]
        if touches.position[key] == position:
            break
        position += 1
    touches.head[pool] = position
    best = NOBODY
    while position < tail:
        key = touches.entry[base + (position & last)]
        if touches.position[key] == position:
            if best != NOBODY and touches.clock[key] != touches.clock[best]:
                break
            if evictable(core, key) and (best == NOBODY or key > best):
                best = key
        position += 1
    return best
