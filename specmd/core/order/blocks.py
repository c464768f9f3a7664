"""Integer values of keys, with the largest of every block of 32 kept: a two-level maximum.

Made for ranks that only rise when a key is touched, as a next use does: then a change costs one
comparison, and finding the largest a look at every block and into one. Nothing is sorted, so there
is little to mispredict; on a few thousand keys this beats a heap. Keys sit in numbered places,
lowest free place first, so that few residents mean few blocks.

A value carries its key in the low bits: no two are equal, and of equal values the larger key is
the larger one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.core.event import NOBODY, IntArray, KeyArray, World
from specmd.core.state import Core, evictable

SHIFT = 5
WIDTH = 1 << SHIFT
KEY_SPACE = 1 << 20
LARGEST = 1 << 42  # values are cut here: clocks stay below, "never" does not


class Blocks(NamedTuple):
    """Pool p owns the places from `p * pool_blocks * WIDTH` on."""

    value: IntArray  # (places,) value * KEY_SPACE + key; -1 in an empty place
    top: IntArray  # (blocks,) largest of each block
    place: KeyArray  # (keys,)
    free: KeyArray  # (places,) per pool a stack of empty places
    taken: IntArray  # (pools,) places taken
    high: IntArray  # (pools,) blocks ever used
    pool_blocks: int


def make_blocks(world: World) -> Blocks:
    """Build blocks with no key in them."""
    num_keys, pools = world.num_keys, world.pools
    if num_keys > KEY_SPACE:
        raise ValueError(f"at most {KEY_SPACE} keys")
    pool_blocks = -(-world.pool_span // WIDTH)
    places = pools * pool_blocks * WIDTH
    return Blocks(
        np.full(places, -1, np.int64),
        np.full(pools * pool_blocks, -1, np.int64),
        np.zeros(num_keys, np.uint32),
        np.arange(places, dtype=np.uint32),
        np.zeros(pools, np.int64),
        np.zeros(pools, np.int64),
        pool_blocks,
    )


def enter(blocks: Blocks, pool: int, key: int, value: int) -> None:
    """Give a key a place and a value."""
    place = blocks.free[pool * blocks.pool_blocks * WIDTH + blocks.taken[pool]]
    blocks.taken[pool] += 1
    blocks.high[pool] = max(blocks.high[pool], (blocks.taken[pool] + WIDTH - 1) >> SHIFT)
    blocks.place[key] = place
    set_place(blocks, place, min(value, LARGEST) * KEY_SPACE + key)


def set_value(blocks: Blocks, key: int, value: int) -> None:
    """Change the value of a key that has a place."""
    set_place(blocks, blocks.place[key], min(value, LARGEST) * KEY_SPACE + key)


def leave(blocks: Blocks, pool: int, key: int) -> None:
    """Empty the place of a key."""
    place = blocks.place[key]
    set_place(blocks, place, -1)
    blocks.taken[pool] -= 1
    blocks.free[pool * blocks.pool_blocks * WIDTH + blocks.taken[pool]] = place


def set_place(blocks: Blocks, place: int, value: int) -> None:
    """Write a place and keep the top of its block true."""
    block = place >> SHIFT
    before = blocks.value[place]
    blocks.value[place] = value
    if value >= blocks.top[block]:
        blocks.top[block] = value
    elif before == blocks.top[block]:
        largest = -1
        for other in range(block << SHIFT, (block + 1) << SHIFT):
            largest = max(largest, blocks.value[other])
        blocks.top[block] = largest


def largest_evictable(blocks: Blocks, pool: int, core: Core) -> int:
    """Find the evictable key of the largest value; NOBODY if none may leave."""
    first = pool * blocks.pool_blocks
    last = first + blocks.high[pool]
    largest = -1
    for block in range(first, last):
        largest = max(largest, blocks.top[block])
    if largest < 0:
        return NOBODY
    if evictable(core, largest & (KEY_SPACE - 1)):
        return largest & (KEY_SPACE - 1)
    # It is held: look into every block that could hold a better key than the best so far.
    best = -1
    for block in range(first, last):
        if blocks.top[block] > best:
            for place in range(block << SHIFT, (block + 1) << SHIFT):
                value = blocks.value[place]
                if value > best and evictable(core, value & (KEY_SPACE - 1)):
                    best = value
    return NOBODY if best < 0 else best & (KEY_SPACE - 1)
