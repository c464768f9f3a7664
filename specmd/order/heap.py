"""Indexed binary heaps over keys, one a pool: the smallest rank on top.

Order is lexicographic: rank, then tie, then the *larger* key, which is the contract's tie rule. A
key's rank may change at any time (`settle_rank`), at O(log n). Held keys stay in the heap; the
search for the least evictable key descends below held ones only, so it costs little more than the
number of held keys it meets.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy.event import NOBODY, FloatArray, IntArray, KeyArray
from specmd.residency import Core, evictable


class Heap(NamedTuple):
    """Heaps of `pools` pools with `span` keys each; pool p owns nodes from `p * span` on."""

    node: KeyArray  # (keys,) key at each node
    place: IntArray  # (keys,) node of each key within its pool, -1 when not in the heap
    rank: FloatArray  # (keys,)
    tie: IntArray  # (keys,)
    count: IntArray  # (pools,)
    stack: IntArray  # (keys,) scratch of the search
    span: int


def make_heap(num_keys: int, pools: int) -> Heap:
    """Build empty heaps."""
    return Heap(
        np.zeros(num_keys, np.uint32),
        np.full(num_keys, -1, np.int64),
        np.zeros(num_keys, np.float64),
        np.zeros(num_keys, np.int64),
        np.zeros(pools, np.int64),
        np.zeros(num_keys + 2, np.int64),
        num_keys // pools,
    )


def precedes(heap: Heap, a: int, b: int) -> bool:
    """Does key a leave before key b?"""
    if heap.rank[a] != heap.rank[b]:
        return heap.rank[a] < heap.rank[b]
    if heap.tie[a] != heap.tie[b]:
        return heap.tie[a] < heap.tie[b]
    return a > b


def put(heap: Heap, pool: int, key: int, rank: float, tie: int) -> None:
    """Insert a key."""
    heap.rank[key] = rank
    heap.tie[key] = tie
    heap.place[key] = heap.count[pool]
    heap.node[pool * heap.span + heap.count[pool]] = key
    heap.count[pool] += 1
    rise(heap, pool, key)


def settle_rank(heap: Heap, pool: int, key: int, rank: float, tie: int) -> None:
    """Change the rank of a key that is in the heap."""
    heap.rank[key] = rank
    heap.tie[key] = tie
    rise(heap, pool, key)
    sink(heap, pool, key)


def drop(heap: Heap, pool: int, key: int) -> None:
    """Remove a key that is in the heap."""
    place = heap.place[key]
    heap.place[key] = -1
    heap.count[pool] -= 1
    last = heap.node[pool * heap.span + heap.count[pool]]
    if last != key:
        heap.node[pool * heap.span + place] = last
        heap.place[last] = place
        rise(heap, pool, last)
        sink(heap, pool, last)


def rise(heap: Heap, pool: int, key: int) -> None:
    """Move a key up to where it belongs."""
    base = pool * heap.span
    place = heap.place[key]
    while place > 0:
        above = (place - 1) >> 1
        other = heap.node[base + above]
        if not precedes(heap, key, other):
            break
        heap.node[base + place] = other
        heap.place[other] = place
        place = above
    heap.node[base + place] = key
    heap.place[key] = place


def sink(heap: Heap, pool: int, key: int) -> None:
    """Move a key down to where it belongs."""
    base = pool * heap.span
    count = heap.count[pool]
    place = heap.place[key]
    while 2 * place + 1 < count:
        below = 2 * place + 1
        other = heap.node[base + below]
        if below + 1 < count and precedes(heap, heap.node[base + below + 1], other):
            below += 1
            other = heap.node[base + below]
        if not precedes(heap, other, key):
            break
        heap.node[base + place] = other
        heap.place[other] = place
        place = below
    heap.node[base + place] = key
    heap.place[key] = place


def least_evictable(heap: Heap, pool: int, core: Core) -> int:
    """Find the evictable key that leaves first; NOBODY if none may leave."""
    count = heap.count[pool]
    if count == 0:
        return NOBODY
    base = pool * heap.span
    top = heap.node[base]
    if evictable(core, top):
        return top
    best = NOBODY
    heap.stack[0] = 0
    waiting = 1
    while waiting > 0:
        waiting -= 1
        place = heap.stack[waiting]
        key = heap.node[base + place]
        if best != NOBODY and not precedes(heap, key, best):
            continue
        if evictable(core, key):
            best = key
        else:
            for below in range(2 * place + 1, min(2 * place + 3, count)):
                heap.stack[waiting] = below
                waiting += 1
    return best
