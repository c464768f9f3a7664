"""Indexed binary heaps over keys, one a pool: the smallest rank on top.

Order is lexicographic: rank, then tie, then the *larger* key, which is the contract's tie rule. A
key's rank may change at any time (`settle_rank`), at O(log n). Held keys stay in the heap; the
search for the least evictable key descends below held ones only, so it costs little more than the
number of held keys it meets.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.core.event import NOBODY, FloatArray, IntArray, KeyArray, World
from specmd.core.state import Core, evictable


class Heap(NamedTuple):
    """Heaps of pools with at most `span` keys each; pool p owns nodes from `p * span` on."""

    node: KeyArray  # (pools * span,) key at each node
    rank: FloatArray  # (pools * span,) rank at each node
    place: KeyArray  # (keys,) node of each key, counted within its pool
    tie: IntArray  # (keys,) tie of each key
    count: IntArray  # type: ignore[assignment]  # (pools,)
    stack: KeyArray  # (keys,) scratch of the search
    span: int


def make_heap(world: World) -> Heap:
    """Build an empty heap for each pool."""
    keys, nodes = world.num_keys, world.pools * world.pool_span
    return Heap(
        np.zeros(nodes, np.uint32),
        np.zeros(nodes),
        np.zeros(keys, np.uint32),
        np.zeros(keys, np.int64),
        np.zeros(world.pools, np.int64),
        np.zeros(keys + 2, np.uint32),
        world.pool_span,
    )


def precedes(heap: Heap, rank: float, key: int, node: int) -> bool:
    """Tell whether a key of some rank leaves before the key at a node."""
    if rank != heap.rank[node]:
        return rank < heap.rank[node]
    other = heap.node[node]
    if heap.tie[key] != heap.tie[other]:
        return heap.tie[key] < heap.tie[other]
    return key > other


def put(heap: Heap, pool: int, key: int, rank: float, tie: int) -> None:
    """Insert a key."""
    heap.tie[key] = tie
    heap.count[pool] += 1
    rise(heap, pool, key, rank, heap.count[pool] - 1)


def settle_rank(heap: Heap, pool: int, key: int, rank: float, tie: int) -> None:
    """Change the rank of a key that is in the heap."""
    place = heap.place[key]
    before = heap.rank[pool * heap.span + place]
    earlier = rank < before or (rank == before and tie < heap.tie[key])
    heap.tie[key] = tie
    if earlier:
        rise(heap, pool, key, rank, place)
    else:
        sink(heap, pool, key, rank, place)


def drop(heap: Heap, pool: int, key: int) -> None:
    """Remove a key that is in the heap."""
    base = pool * heap.span
    place = heap.place[key]
    heap.count[pool] -= 1
    end = base + heap.count[pool]
    last, rank = heap.node[end], heap.rank[end]
    if last != key:
        if place > 0 and precedes(heap, rank, last, base + ((place - 1) >> 1)):
            rise(heap, pool, last, rank, place)
        else:
            sink(heap, pool, last, rank, place)


def rise(heap: Heap, pool: int, key: int, rank: float, place: int) -> None:
    """Move a key up from a place to where it belongs."""
    base = pool * heap.span
    while place > 0:
        above = (place - 1) >> 1
        if not precedes(heap, rank, key, base + above):
            break
        other = heap.node[base + above]
        heap.node[base + place] = other
        heap.rank[base + place] = heap.rank[base + above]
        heap.place[other] = place
        place = above
    heap.node[base + place] = key
    heap.rank[base + place] = rank
    heap.place[key] = place


def sink(heap: Heap, pool: int, key: int, rank: float, place: int) -> None:
    """Move a key down from a place to where it belongs."""
    base = pool * heap.span
    count = heap.count[pool]
    while 2 * place + 1 < count:
        below = 2 * place + 1
        if below + 1 < count:
            right = base + below + 1
            if precedes(heap, heap.rank[right], heap.node[right], base + below):
                below += 1
        if precedes(heap, rank, key, base + below):
            break
        other = heap.node[base + below]
        heap.node[base + place] = other
        heap.rank[base + place] = heap.rank[base + below]
        heap.place[other] = place
        place = below
    heap.node[base + place] = key
    heap.rank[base + place] = rank
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
    # Descend below held keys only: what is evictable hides all that is below it.
    best = -1
    heap.stack[0] = 0
    waiting = 1
    while waiting > 0:
        waiting -= 1
        place = heap.stack[waiting]
        key = heap.node[base + place]
        if best >= 0 and not precedes(heap, heap.rank[base + place], key, best):
            continue
        if evictable(core, key):
            best = base + place
        else:
            for below in range(2 * place + 1, min(2 * place + 3, count)):
                heap.stack[waiting] = below
                waiting += 1
    return NOBODY if best < 0 else heap.node[best]
