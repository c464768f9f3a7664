"""Doubly linked lists over integer keys, as two arrays.

Key k is node k. List h is closed by a sentinel node `size + h`, so no operation branches on an
empty list: `next[sentinel]` is the front and `prev[sentinel]` the back. A key is in at most one
list. All operations are O(1), except `place_ordered`, which walks the keys of the same stamp.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from specmd.core.event import NOBODY, IntArray, KeyArray
from specmd.core.state import Core, evictable


class Lists(NamedTuple):
    """Lists over `size` keys; `next` and `prev` have one entry a key and one a list."""

    next: KeyArray
    prev: KeyArray
    size: Any  # uint32: compiled indexing needs no sign check


def make_lists(size: int, count: int) -> Lists:
    """Build `count` empty lists over the keys 0..size-1."""
    nodes = np.arange(size + count, dtype=np.uint32)
    return Lists(nodes.copy(), nodes.copy(), np.uint32(size))


def front(lists: Lists, which: int) -> int:
    """First node of a list; its sentinel (>= size) when the list is empty."""
    return lists.next[lists.size + which]


def back(lists: Lists, which: int) -> int:
    """Last node of a list; its sentinel (>= size) when the list is empty."""
    return lists.prev[lists.size + which]


def unlink(lists: Lists, key: int) -> None:
    """Take a key out of the list it is in."""
    after = lists.next[key]
    before = lists.prev[key]
    lists.next[before] = after
    lists.prev[after] = before


def insert_before(lists: Lists, node: int, key: int) -> None:
    """Put a key, in no list now, in front of a node."""
    before = lists.prev[node]
    lists.next[before] = key
    lists.prev[key] = before
    lists.next[key] = node
    lists.prev[node] = key


def push_front(lists: Lists, which: int, key: int) -> None:
    """Put a key, in no list now, at the front."""
    insert_before(lists, lists.next[lists.size + which], key)


def push_back(lists: Lists, which: int, key: int) -> None:
    """Put a key, in no list now, at the back."""
    insert_before(lists, lists.size + which, key)


def place_ordered(lists: Lists, which: int, key: int, stamp: IntArray, now: int) -> None:
    """Stamp a key, in no list now, and put it at the front; equal stamps stay by ascending key.

    With this the back of the list is the key of the smallest stamp and, among those, the largest
    key: the tie rule of the contract.
    """
    stamp[key] = now
    end = lists.size + which
    node = lists.next[end]
    while node != end and stamp[node] == now and node < key:
        node = lists.next[node]
    insert_before(lists, node, key)


def last_evictable(lists: Lists, which: int, core: Core) -> int:
    """Find the key nearest to the back that may leave now; NOBODY if none may."""
    end = lists.size + which
    key = lists.prev[end]
    while key != end:
        if evictable(core, key):
            return key
        key = lists.prev[key]
    return NOBODY


def splice_front(lists: Lists, source: int, target: int) -> None:
    """Move all keys of one list, in their order, to the front of another."""
    a, b = lists.size + source, lists.size + target
    first, last = lists.next[a], lists.prev[a]
    if first == a:
        return
    after = lists.next[b]
    lists.next[b] = first
    lists.prev[first] = b
    lists.next[last] = after
    lists.prev[after] = last
    lists.next[a] = a
    lists.prev[a] = a
