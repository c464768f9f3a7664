"""Stacks: what a policy's cache holds at every capacity at once, one event after the other.

Where a cache of C slots always holds a part of what one of C + 1 slots holds, the keys can be
written as one stack whose first C entries are the cache of C slots (the inclusion property; Mattson
et al., IBM Systems Journal 9(2), 1970). A demanded key that lies at depth d is then a hit exactly
where C > d, so counting depths counts the hits of every capacity.

Event-atomic caches have the property, for LRU and for Belady. At an event with the set U a cache R
of C slots becomes, U being held and every miss admitted, U and the C - |U| best of R without U; the
C best of U where |U| >= C; and, under bypass, the C best of R and U together. "Best" is an order of
keys that is the same at every capacity: latest event first, then smaller key (LRU); soonest next
use first, then smaller key (Belady). By induction the caches of C and C + 1 slots differ by at most
one key before the event; leaving U out, or taking it in, keeps that, and so does taking the n best
of the one and the n + 1 best of the other. LRU's stack is simply all keys in its order.

Depths are classified against the stack at the event's start, whatever the order within it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.core.event import NEVER, IntArray, KeyArray
from specmd.core.order.blocks import KEY_SPACE, LARGEST

ROOM = 4  # moments for each key: the more, the rarer they are numbered anew


class Recency(NamedTuple):
    """Moments at which keys were used last; pool p owns `moments` of them.

    A Fenwick tree counts the moments that are some key's last use. It is a few times as large as
    the number of keys, not of uses: moments are numbered anew when they run out.
    """

    last: IntArray  # (keys,) moment of the last use within the pool, -1 never
    owner: IntArray  # (pools * moments,) key, or -1 where it was used again since
    tree: IntArray  # (pools * (moments + 1),)
    clock: IntArray  # (pools,) moments given out
    live: IntArray  # (pools,) keys in the stack
    moments: int


def make_recency(num_keys: int, pools: int, span: int) -> Recency:
    """Build an empty stack of LRU for each pool, of at most `span` keys."""
    moments = ROOM * span
    return Recency(
        np.full(num_keys, -1, np.int64),
        np.full(pools * moments, -1, np.int64),
        np.zeros(pools * (moments + 1), np.int64),
        np.zeros(pools, np.int64),
        np.zeros(pools, np.int64),
        moments,
    )


def count_recency(
    stack: Recency,
    keys: KeyArray,
    start: IntArray,
    row: IntArray,
    pool_of: KeyArray,
    width: int,
    out: IntArray,
) -> None:
    """Take events in order and count the depths of their keys in LRU's stack.

    Args:
        stack: where the events before left it.
        keys: of all events, each event's ascending.
        start: (events + 1,) where each event's keys begin.
        row: (events,) the row of `out` to count in.
        pool_of: (rows,) pool of each row.
        width: columns of a row: depths, and at the end one for keys that are not in the stack.
        out: (rows * width,) counts.

    """
    for event in range(len(row)):
        pool = pool_of[row[event]]
        first, stop = start[event], start[event + 1]
        if stack.clock[pool] + stop - first > stack.moments:
            renumber(stack, pool)
        base = row[event] * width
        for i in range(first, stop):
            depth = depth_of(stack, pool, keys[i])
            out[base + (width - 1 if depth < 0 else depth)] += 1
        for i in range(stop - 1, first - 1, -1):  # the smaller key ends up above
            touch(stack, pool, keys[i])


def depth_of(stack: Recency, pool: int, key: int) -> int:
    """Return how many keys of the pool stand above one; -1 if it is not in the stack."""
    moment = stack.last[key]
    if moment < 0:
        return -1
    base = pool * (stack.moments + 1)
    depth = stack.live[pool]
    node = moment + 1
    while node > 0:
        depth -= stack.tree[base + node]
        node &= node - 1
    return depth


def touch(stack: Recency, pool: int, key: int) -> None:
    """Put a key on top."""
    moment = stack.last[key]
    if moment < 0:
        stack.live[pool] += 1
    else:
        stack.owner[pool * stack.moments + moment] = -1
        mark_moment(stack, pool, moment, -1)
    moment = stack.clock[pool]
    stack.clock[pool] = moment + 1
    stack.last[key] = moment
    stack.owner[pool * stack.moments + moment] = key
    mark_moment(stack, pool, moment, 1)


def mark_moment(stack: Recency, pool: int, moment: int, change: int) -> None:
    """Change a moment's count in the tree."""
    base = pool * (stack.moments + 1)
    node = moment + 1
    while node <= stack.moments:
        stack.tree[base + node] += change
        node += node & -node


def renumber(stack: Recency, pool: int) -> None:
    """Give the keys of a pool the first moments, in their order."""
    base = pool * stack.moments
    clock = 0
    for moment in range(stack.moments):
        key = stack.owner[base + moment]
        if key >= 0:
            stack.owner[base + moment] = -1
            stack.owner[base + clock] = key
            stack.last[key] = clock
            clock += 1
    stack.clock[pool] = clock
    for node in range(1, stack.moments + 1):
        covered = node & -node
        count = min(node, clock) - (node - covered)
        stack.tree[base + pool + node] = max(0, count)


class Foresight(NamedTuple):
    """Belady's stacks, cut at `depth` entries; pool p owns the entries from `p * depth` on.

    An entry is its key's next use and the key, in one number, so that entries compare as keys do.
    """

    entry: IntArray  # (pools * depth,)
    size: IntArray  # (pools,) entries
    seen: IntArray  # (keys,) whether the key was demanded
    fresh: IntArray  # (keys,) scratch: the entries of U
    waiting: IntArray  # (keys,) scratch: the entries that have no place yet, best first
    depth: int
    bypass: bool


def make_foresight(num_keys: int, pools: int, depth: int, bypass: bool) -> Foresight:
    """Build an empty stack of Belady for each pool."""
    if num_keys > KEY_SPACE:
        raise ValueError(f"at most {KEY_SPACE} keys")
    scratch = np.zeros(num_keys + 1, np.int64)
    return Foresight(
        np.zeros(pools * depth, np.int64),
        np.zeros(pools, np.int64),
        np.zeros(num_keys, np.int64),
        scratch,
        scratch.copy(),
        depth,
        bypass,
    )


def count_foresight(
    stack: Foresight,
    keys: KeyArray,
    next_use: IntArray,
    clock: int,
    start: IntArray,
    row: IntArray,
    pool_of: KeyArray,
    width: int,
    out: IntArray,
) -> None:
    """Take events in order and count the depths of their keys in Belady's stack.

    Args:
        stack: where the events before left it.
        keys: of all events.
        next_use: clock of the event that uses each of them next.
        clock: of the first event.
        start: (events + 1,) where each event's keys begin.
        row: (events,) the row of `out` to count in.
        pool_of: (rows,) pool of each row.
        width: columns of a row: `depth` depths, then keys that lie deeper, then keys never seen.
        out: (rows * width,) counts.

    """
    for event in range(len(row)):
        pool = pool_of[row[event]]
        first, stop = start[event], start[event + 1]
        base = row[event] * width
        for i in range(first, stop):
            key = keys[i]
            insert(stack.fresh, i - first, min(next_use[i], LARGEST) * KEY_SPACE + key)
            out[base + width - (1 if stack.seen[key] == 0 else 2)] += 1
            stack.seen[key] = 1
        reorder(stack, pool, stop - first, (clock + event + 1) * KEY_SPACE, base, width, out)


def insert(entries: IntArray, count: int, entry: int) -> None:
    """Insert an entry among `count` that are in order."""
    place = count
    while place > 0 and entries[place - 1] > entry:
        entries[place] = entries[place - 1]
        place -= 1
    entries[place] = entry


def reorder(
    stack: Foresight, pool: int, wide: int, limit: int, base: int, width: int, out: IntArray
) -> None:
    """Bring a stack from before an event to after it; entries below `limit` are those of U.

    Walks down once. On the way, `waiting` are the entries that the cache of as many slots as were
    passed does not keep: as many as it misses. Below the deepest key of U nothing changes.
    """
    top = pool * stack.depth
    count = stack.size[pool]
    waiting, place, missing = 0, 0, wide
    if stack.bypass:
        for i in range(wide):
            stack.waiting[i] = stack.fresh[i]
        waiting = wide
    else:
        while place < min(wide, stack.depth):
            if place < count:
                entry = stack.entry[top + place]
                if entry < limit:
                    out[base + place] += 1
                    out[base + width - 2] -= 1
                    missing -= 1
                else:
                    insert(stack.waiting, waiting, entry)
                    waiting += 1
            stack.entry[top + place] = stack.fresh[place]
            place += 1
    while missing > 0 and place < count:
        entry = stack.entry[top + place]
        if entry < limit:
            out[base + place] += 1
            out[base + width - 2] -= 1
            missing -= 1
            stack.entry[top + place] = stack.waiting[0]
            waiting -= 1
            for i in range(waiting):
                stack.waiting[i] = stack.waiting[i + 1]
        elif entry > stack.waiting[0]:
            stack.entry[top + place] = stack.waiting[0]
            i = 0
            while i + 1 < waiting and stack.waiting[i + 1] < entry:
                stack.waiting[i] = stack.waiting[i + 1]
                i += 1
            stack.waiting[i] = entry
        place += 1
    if missing > 0:
        i = 0
        while place < stack.depth and i < waiting:
            stack.entry[top + place] = stack.waiting[i]
            place += 1
            i += 1
        stack.size[pool] = max(count, place)


def place_first(stack: Foresight, pool_of: KeyArray, next_use: IntArray) -> None:
    """Fill the stacks with the keys that are used again, soonest first, and nothing else.

    As one event that demands them all would; the keys that are not used again, which it would leave
    below them, are never hit.
    """
    for pool in range(len(stack.size)):
        keys = np.flatnonzero((pool_of == pool) & (next_use < NEVER))
        kept = np.sort(next_use[keys] * KEY_SPACE + keys)[: stack.depth].tolist()
        for place, entry in enumerate(kept, pool * stack.depth):
            stack.entry[place] = entry
        stack.size[pool] = len(kept)
