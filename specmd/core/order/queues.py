"""Queues of keys with their lengths, some of what is resident, some of what has left (ghosts).

Every pool has the same number of queues, each a linked list with its latest key at the front. A key
is in one queue or in none. What a prefetch brings is not used yet: its origin is kept, so that its
first use can do what its miss would have done, and so that it goes back there if it leaves unused.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.core.event import NOBODY, IntArray, KeyArray, World
from specmd.core.order.lists import Lists, back, last_evictable, make_lists, push_front, unlink
from specmd.core.state import Core, evictable

NOWHERE, USED = 100, 101  # no queue; a key used since it came


class Queues(NamedTuple):
    """Queue q of pool p is list `p * each + q`."""

    lists: Lists
    where: KeyArray  # (keys,) the queue a key is in, else NOWHERE
    origin: KeyArray  # (keys,) where a key not used since its prefetch came from; else USED
    uses: IntArray  # (keys,) uses since a key came, where they are counted
    size: IntArray  # (pools * each,)
    limit: IntArray  # (pools,) most keys of a queue of ghosts
    each: int


def make_queues(world: World, each: int, limit: float = 1.0) -> Queues:
    """Build `each` empty queues for every pool; one of ghosts has so many times its slots, or one.

    ARC and its like keep to no such limit, and trim by themselves.
    """
    where = np.full(world.num_keys, NOWHERE, np.uint32)
    lists = make_lists(world.num_keys, each * world.pools)
    size = np.zeros(each * world.pools, np.int64)
    uses = np.zeros(world.num_keys, np.int64)
    origin, ghosts = np.full_like(where, USED), part_of(world, limit)
    return Queues(lists, where, origin, uses, size, ghosts, each)


def part_of(world: World, share: float) -> IntArray:
    """Take a share of the slots of each pool (pools,), rounded down, but one at least."""
    return np.maximum(1, world.capacity * share).astype(np.int64)


def length(queues: Queues, pool: int, queue: int) -> int:
    """Keys in a queue."""
    return queues.size[queues.each * pool + queue]


def move(queues: Queues, pool: int, key: int, queue: int) -> None:
    """Take a key out of its queue, if any, and put it at the front of another, if any."""
    if queues.where[key] != NOWHERE:
        queues.size[queues.each * pool + queues.where[key]] -= 1
        unlink(queues.lists, key)
    queues.where[key] = queue
    if queue != NOWHERE:
        queues.size[queues.each * pool + queue] += 1
        push_front(queues.lists, queues.each * pool + queue, key)


def move_oldest(queues: Queues, pool: int, source: int, queue: int) -> int:
    """Move the last key of a queue, and return it; NOBODY if there is none."""
    if length(queues, pool, source) == 0:
        return NOBODY
    key = back(queues.lists, queues.each * pool + source)
    move(queues, pool, key, queue)
    return key


def bring(queues: Queues, pool: int, key: int, queue: int) -> None:
    """Put a prefetched key at the front of a queue."""
    if queues.origin[key] == USED:
        queues.origin[key] = queues.where[key]
    move(queues, pool, key, queue)


def first_use(queues: Queues, key: int) -> int:
    """Note a use: tell where a key not used since its prefetch came from; USED of any other."""
    origin = queues.origin[key]
    queues.origin[key] = USED
    return origin


def make_way(queues: Queues, pool: int, incoming: int, leaving: int) -> int:
    """Set a ghost aside that is to enter, lest it fall out of its queue for what leaves.

    Returns what leaves. With nobody leaving nothing changes, nor where the key was no ghost.
    """
    if leaving != NOBODY and incoming != NOBODY and queues.where[incoming] != NOWHERE:
        bring(queues, pool, incoming, NOWHERE)
    return leaving


def is_known(queues: Queues, key: int) -> bool:
    """Tell whether a missed key is remembered, in a queue or set aside; that is so no longer."""
    return first_use(queues, key) != USED or queues.where[key] != NOWHERE


def leave_to(queues: Queues, key: int, queue: int) -> int:
    """Tell where a key that leaves goes: into a queue, or back if it was never used."""
    origin = first_use(queues, key)
    return queue if origin == USED else origin


def depart(queues: Queues, pool: int, key: int, queue: int) -> int:
    """Move a key that leaves into a queue of ghosts, or back if it was never used.

    The queue is kept to a limit of keys: its oldest goes for the new one. Returns what is forgotten
    for it, NOBODY if nothing is.
    """
    queues.uses[key] = 0
    target = leave_to(queues, key, queue)
    move(queues, pool, key, target)
    if target == NOWHERE or length(queues, pool, target) <= queues.limit[pool]:
        return NOBODY
    return move_oldest(queues, pool, target, NOWHERE)


def count_use(queues: Queues, key: int, most: int) -> int:
    """Count a use, up to `most`, unless it is a prefetched key's first; tell the key's origin."""
    origin = first_use(queues, key)
    if origin == USED:
        queues.uses[key] = min(queues.uses[key] + 1, most)
    return origin


def oldest(queues: Queues, pool: int, queue: int, core: Core) -> int:
    """Find the key nearest to the back of a queue that may leave; NOBODY if none may."""
    return last_evictable(queues.lists, queues.each * pool + queue, core)


def older(queues: Queues, pool: int, queue: int, other: int, core: Core) -> int:
    """Find the oldest that may leave of a queue, else of another; NOBODY if none may."""
    key = oldest(queues, pool, queue, core)
    return oldest(queues, pool, other, core) if key == NOBODY else key


def sweep(queues: Queues, pool: int, queue: int, core: Core) -> int:
    """Send used keys of a queue to its front, each for a use less, until one may leave.

    What is held and has no use left stays where it is. NOBODY if none may leave.
    """
    lists, uses, which = queues.lists, queues.uses, queues.each * pool + queue
    end = lists.size + which
    key = lists.prev[end]
    while key != end:
        newer = lists.prev[key]
        if uses[key] > 0:
            uses[key] -= 1
            unlink(lists, key)
            push_front(lists, which, key)
            newer = key if newer == end else newer
        elif evictable(core, key):
            return key
        key = newer
    return NOBODY


def sweep_up(
    queues: Queues, pool: int, queue: int, target: int, needed: int, least: float, core: Core
) -> int:
    """Move keys of `needed` uses to the front of another queue, until one may leave.

    They have no use left then. From the back, while the queue has `least` keys. NOBODY if none may
    leave.
    """
    end = queues.lists.size + queues.each * pool + queue
    key = queues.lists.prev[end]
    while key != end and length(queues, pool, queue) >= least:
        newer = queues.lists.prev[key]
        if queues.uses[key] >= needed:
            queues.uses[key] = 0
            move(queues, pool, key, target)
        elif evictable(core, key):
            return key
        key = newer
    return NOBODY
