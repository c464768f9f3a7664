"""S3-FIFO: newcomers pass through a small queue; only what is used there reaches the main one.

J. Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023. A ghost queue of keys
that left the small queue sends a returning key straight to the main one. Every queue has at least
one slot: caches of experts are small.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from specmd.policy import (
    NOBODY,
    Core,
    Event,
    IntArray,
    KeyArray,
    Lists,
    World,
    back,
    evictable,
    last_evictable,
    make_lists,
    policy,
    push_front,
    unlink,
)

SMALL, MAIN, GHOST, NOWHERE = range(4)
Share = Annotated[float, Field(gt=0, lt=1)]
Moves = Annotated[int, Field(ge=1, le=3)]


@policy("s3fifo", source="Yang et al., SOSP 2023", compiled=True)
class S3FIFO(NamedTuple):
    """Per pool three lists, latest at the front: 3 * pool + SMALL, MAIN, GHOST."""

    lists: Lists
    where: IntArray  # (keys,) SMALL, MAIN, GHOST or NOWHERE
    uses: IntArray  # (keys,) since entering, at most 3
    size: IntArray  # (3 * pools,)
    limit: IntArray  # (3 * pools,)
    pool: KeyArray
    move: int

    @classmethod
    def create(cls, world: World, *, small: Share = 0.1, move: Moves = 2) -> S3FIFO:
        """Build the empty queues; `move` is the number of uses that earns a place in MAIN."""
        slots = world.capacity
        first = np.maximum(1, np.rint(slots * small)).astype(np.int64)
        ghost = np.maximum(1, slots * 0.9).astype(np.int64)
        limit = np.stack([first, np.maximum(1, slots - first), ghost], 1).reshape(-1)
        numbers = np.zeros(world.num_keys, np.int64)
        lists = make_lists(world.num_keys, 3 * world.pools)
        pool, where = world.pool, np.full(world.num_keys, NOWHERE, np.int64)
        return cls(lists, where, numbers, np.zeros_like(limit), limit, pool, move)

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Count the use."""
        self.uses[key] = min(self.uses[key] + 1, 3)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter SMALL, or MAIN if remembered."""
        known = self.where[key] == GHOST
        leave(self, key)
        self.uses[key] = 0
        join(self, key, MAIN if known else SMALL)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter SMALL: nothing has been proven yet."""
        leave(self, key)
        self.uses[key] = 0
        join(self, key, SMALL)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave; what leaves SMALL is remembered for a while."""
        small = self.where[key] == SMALL
        leave(self, key)
        if small:
            first = 3 * pool
            if self.size[first + GHOST] >= self.limit[first + GHOST]:
                leave(self, back(self.lists, first + GHOST))
            join(self, key, GHOST)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Pass over used and held keys until one may leave."""
        first = 3 * pool
        for _ in range(5 * (self.size[first + SMALL] + self.size[first + MAIN]) + 1):
            small = self.size[first + SMALL] > 0 and (
                self.size[first + SMALL] >= self.limit[first + SMALL]
                or self.size[first + MAIN] == 0
            )
            if not small and self.size[first + MAIN] == 0:
                return NOBODY
            key = back(self.lists, first + (SMALL if small else MAIN))
            earned = self.uses[key] >= self.move if small else self.uses[key] > 0
            if not earned and evictable(core, key):
                return key
            leave(self, key)
            if small and earned:
                self.uses[key] = 0
            elif earned:
                self.uses[key] -= 1
            join(self, key, MAIN)
        # All of MAIN is held, and SMALL is short: what may leave is there.
        return last_evictable(self.lists, first + SMALL, core)


def join(policy: S3FIFO, key: int, queue: int) -> None:
    """Put a key at the front of a queue."""
    which = 3 * policy.pool[key] + queue
    push_front(policy.lists, which, key)
    policy.where[key] = queue
    policy.size[which] += 1


def leave(policy: S3FIFO, key: int) -> None:
    """Take a key out of the queue it is in, if it is in one."""
    if policy.where[key] != NOWHERE:
        policy.size[3 * policy.pool[key] + policy.where[key]] -= 1
        unlink(policy.lists, key)
        policy.where[key] = NOWHERE
