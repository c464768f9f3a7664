"""A ladder of counts: keys by how often they were used, each rung a list of those used alike.

One linked list a pool, the least used at its back and, of a rung, the smallest stamp, then the
largest key: the order in which the contract lets them leave. A use takes a key one rung up, which
is a step of O(1) (K. Shah, A. Mitra, D. Matani, "An O(1) algorithm for implementing the LFU cache
eviction scheme", 2010); entering with a count passes the rungs below it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.core.event import IntArray, KeyArray
from specmd.core.order.lists import Lists, insert_before, make_lists, unlink


class Ladder(NamedTuple):
    """A rung is a number; its keys stand side by side in the list of their pool."""

    lists: Lists
    stamp: IntArray  # (keys,)
    height: IntArray  # (keys,) count of a key on the ladder
    rung: KeyArray  # (keys,) rung of a key
    front: KeyArray  # (keys,) the rung's key nearest to the front of the list
    free: KeyArray  # (keys,) rungs not in use: free[:num_free[0]]
    num_free: IntArray


def make_ladder(num_keys: int, pools: int) -> Ladder:
    """Build one with no key on it."""
    keys, numbers = np.zeros(num_keys, np.uint32), np.zeros(num_keys, np.int64)
    free = np.arange(num_keys, dtype=np.uint32)
    lists = make_lists(num_keys, pools)
    num_free = np.full(1, num_keys, np.int64)
    return Ladder(lists, numbers, numbers.copy(), keys, keys.copy(), free, num_free)


def climb(ladder: Ladder, key: int, stamp: int) -> None:
    """Take a key one rung up."""
    first = ladder.front[ladder.rung[key]]
    above, below = ladder.lists.prev[first], ladder.lists.next[key]
    ladder.stamp[key] = stamp
    ladder.height[key] += 1
    if above < ladder.lists.size and ladder.height[above] == ladder.height[key]:
        step_off(ladder, key)
        join(ladder, ladder.rung[above], key)
    elif first != key or is_on(ladder, below, ladder.rung[key]):
        step_off(ladder, key)
        found(ladder, below if first == key else first, key)


def step_on(ladder: Ladder, pool: int, key: int, height: int, stamp: int) -> None:
    """Let a key enter with a count."""
    ladder.stamp[key] = stamp
    ladder.height[key] = height
    after = ladder.lists.size + pool
    node = ladder.lists.prev[after]
    while node < ladder.lists.size and ladder.height[node] < height:
        after = ladder.front[ladder.rung[node]]
        node = ladder.lists.prev[after]
    if node < ladder.lists.size and ladder.height[node] == height:
        join(ladder, ladder.rung[node], key)
    else:
        found(ladder, after, key)


def step_off(ladder: Ladder, key: int) -> None:
    """Take a key off the ladder."""
    rung = ladder.rung[key]
    if ladder.front[rung] == key:
        below = ladder.lists.next[key]
        if is_on(ladder, below, rung):
            ladder.front[rung] = below
        else:
            ladder.free[ladder.num_free[0]] = rung
            ladder.num_free[0] += 1
    unlink(ladder.lists, key)


def halve(ladder: Ladder, counts: IntArray) -> None:
    """Halve the counts of all keys, rounded down, and bring those on the ladder where they belong.

    From the back: a key steps down behind all that are still to come.
    """
    for key in range(len(counts)):
        counts[key] //= 2
    lists = ladder.lists
    for pool in range(len(lists.next) - lists.size):
        key = lists.prev[lists.size + pool]
        while key < lists.size:
            above = lists.prev[key]
            step_off(ladder, key)
            step_on(ladder, pool, key, ladder.height[key] // 2, ladder.stamp[key])
            key = above


def is_on(ladder: Ladder, node: int, rung: int) -> bool:
    """Tell whether a node of the list is a key on a rung."""
    return node < ladder.lists.size and ladder.rung[node] == rung


def join(ladder: Ladder, rung: int, key: int) -> None:
    """Put a key on a rung: the latest stamp at the front, equal stamps by ascending key."""
    node, stamp = ladder.front[rung], ladder.stamp
    if stamp[node] < stamp[key] or (stamp[node] == stamp[key] and node > key):
        ladder.front[rung] = key
    else:
        while is_on(ladder, node, rung) and (
            stamp[node] > stamp[key] or (stamp[node] == stamp[key] and node < key)
        ):
            node = ladder.lists.next[node]
    insert_before(ladder.lists, node, key)
    ladder.rung[key] = rung


def found(ladder: Ladder, node: int, key: int) -> None:
    """Put a key on a rung of its own, in front of a node."""
    ladder.num_free[0] -= 1
    rung = ladder.free[ladder.num_free[0]]
    ladder.rung[key] = rung
    ladder.front[rung] = key
    insert_before(ladder.lists, node, key)
