"""S3-FIFO: newcomers pass through a small queue; only what is used there reaches the main one.

J. Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023. A ghost queue of keys
that left the small queue sends a returning key straight to the main one. Every queue has at least
one slot: caches of experts are small. A held key is passed over where it stands. The first use of
a prefetched key does what its miss would have done. With `warm=true`, as in the authors' own
libCacheSim, newcomers fill the main queue too until the first eviction.
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
    make_lists,
    policy,
    push_front,
    unlink,
)

SMALL, MAIN, GHOST, NOWHERE = range(4)
USED, PREFETCHED, RETURNED = range(3)  # RETURNED: prefetched while in GHOST
Share = Annotated[float, Field(gt=0, lt=1)]
Moves = Annotated[int, Field(ge=1, le=3)]


@policy("s3fifo", source="Yang et al., SOSP 2023", remembers=True, compiled=True)
class S3FIFO(NamedTuple):
    """Per pool three lists, latest at the front: 3 * pool + SMALL, MAIN, GHOST."""

    lists: Lists
    where: IntArray  # (keys,) SMALL, MAIN, GHOST or NOWHERE
    uses: IntArray  # (keys,) since entering, at most 3
    came: IntArray  # (keys,) USED, or how a key not used so far was prefetched
    size: IntArray  # (3 * pools,)
    limit: IntArray  # (3 * pools,)
    cold: IntArray  # (pools,) 1 while MAIN takes newcomers
    pool: KeyArray
    move: int

    @classmethod
    def create(
        cls, world: World, *, small: Share = 0.1, move: Moves = 2, warm: bool = False
    ) -> S3FIFO:
        """Build the empty queues; `move` is the number of uses that earns a place in MAIN."""
        slots = world.capacity
        first = np.maximum(1, np.rint(slots * small)).astype(np.int64)
        ghost = np.maximum(1, slots * 0.9).astype(np.int64)
        limit = np.stack([first, np.maximum(1, slots - first), ghost], 1).reshape(-1)
        where = np.full(world.num_keys, NOWHERE, np.int64)
        return cls(
            make_lists(world.num_keys, 3 * world.pools),
            where,
            np.zeros_like(where),
            np.zeros_like(where),
            np.zeros_like(limit),
            limit,
            np.full(world.pools, int(warm), np.int64),
            world.pool,
            move,
        )

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Count the use, unless it is the first of a prefetched key."""
        if self.came[key] == USED:
            self.uses[key] = min(self.uses[key] + 1, 3)
        elif self.came[key] == RETURNED:
            leave(self, key)
            join(self, key, MAIN)
        self.came[key] = USED

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter SMALL, or MAIN if remembered, or while it fills."""
        first = 3 * pool
        fills = self.cold[pool] and self.size[first + SMALL] >= self.limit[first + SMALL]
        known = self.where[key] == GHOST
        leave(self, key)
        self.uses[key] = 0
        self.came[key] = USED
        join(self, key, MAIN if known or fills else SMALL)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter SMALL: nothing has been proven yet."""
        self.came[key] = RETURNED if self.where[key] == GHOST else PREFETCHED
        leave(self, key)
        self.uses[key] = 0
        join(self, key, SMALL)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave; what leaves SMALL, and was ever used, is remembered for a while."""
        remembered = self.where[key] == SMALL and self.came[key] != PREFETCHED
        leave(self, key)
        if remembered:
            first = 3 * pool
            if self.size[first + GHOST] >= self.limit[first + GHOST]:
                leave(self, back(self.lists, first + GHOST))
            join(self, key, GHOST)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Take from SMALL if it has its share, else from MAIN; from the other if all is held."""
        self.cold[pool] = 0
        first = 3 * pool
        key = NOBODY
        if self.size[first + SMALL] < self.limit[first + SMALL]:
            key = sweep_main(self, first + MAIN, core)
        if key == NOBODY:
            key = sweep_small(self, first + SMALL, core)
        return sweep_main(self, first + MAIN, core) if key == NOBODY else key


def sweep_small(policy: S3FIFO, queue: int, core: Core) -> int:
    """Promote what has earned it, from the back, until a key may leave."""
    end = policy.lists.size + queue
    key = policy.lists.prev[end]
    while key != end:
        newer = policy.lists.prev[key]
        if policy.uses[key] >= policy.move:
            policy.uses[key] = 0
            leave(policy, key)
            join(policy, key, MAIN)
        elif evictable(core, key):
            return key
        key = newer
    return NOBODY


def sweep_main(policy: S3FIFO, queue: int, core: Core) -> int:
    """Send used keys to the front, each for a use less, until a key may leave."""
    end = policy.lists.size + queue
    key = policy.lists.prev[end]
    while key != end:
        newer = policy.lists.prev[key]
        if policy.uses[key] > 0:
            policy.uses[key] -= 1
            unlink(policy.lists, key)
            push_front(policy.lists, queue, key)
            newer = key if newer == end else newer
        elif evictable(core, key):
            return key
        key = newer
    return NOBODY


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
