"""S3-FIFO: newcomers pass through a small queue; only what is used there reaches the main one.

J. Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023. What left the small
queue lately goes straight to the main one. Every queue has a slot at least; what is held is passed
over; the first use of a prefetched key does what its miss would have done. With `warm=true`, as in
the authors' libCacheSim, newcomers fill the main queue too until the first eviction.
"""

from typing import NamedTuple, Self

import numpy as np

from specmd.policy import (
    NOBODY,
    NOWHERE,
    Core,
    Count,
    Cut,
    Event,
    IntArray,
    Queues,
    World,
    bring,
    count_use,
    depart,
    length,
    make_queues,
    move,
    policy,
    sweep,
    sweep_up,
)

SMALL, MAIN, GHOST = range(3)


@policy("s3fifo", source="Yang et al., SOSP 2023", remembers=True, compiled=True)
class S3FIFO(NamedTuple):
    """The queues, and by pool the size of SMALL, and 1 while MAIN takes newcomers."""

    queues: Queues
    small: IntArray
    cold: IntArray
    needed: int

    @classmethod
    def create(cls, world: World, *, small: Cut = 0.1, move: Count = 2, warm: bool = False) -> Self:
        """Build the empty queues; `move` is the number of uses that earns a place in MAIN."""
        first = np.maximum(1, np.rint(world.capacity * small)).astype(np.int64)
        return cls(make_queues(world, 3, 0.9), first, np.full_like(first, int(warm)), move)

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Count the use, up to 3, unless it is the first of a prefetched key."""
        if count_use(self.queues, key, max(3, self.needed)) == GHOST:
            move(self.queues, pool, key, MAIN)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter SMALL, or MAIN if remembered, or while it fills."""
        fills = self.cold[pool] and length(self.queues, pool, SMALL) >= self.small[pool]
        move(self.queues, pool, key, MAIN if fills or self.queues.where[key] == GHOST else SMALL)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter SMALL: nothing has been proven yet."""
        bring(self.queues, pool, key, SMALL)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave; what leaves SMALL, and was ever used, is remembered for a while."""
        ghost = GHOST if self.queues.where[key] == SMALL else NOWHERE
        depart(self.queues, pool, key, ghost)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Take from SMALL if it has its share, else from MAIN; from the other if all is held."""
        self.cold[pool], key = 0, NOBODY
        if length(self.queues, pool, SMALL) < self.small[pool]:
            key = sweep(self.queues, pool, MAIN, core)
        if key == NOBODY:
            key = sweep_up(self.queues, pool, SMALL, MAIN, self.needed, 0, core)
        return sweep(self.queues, pool, MAIN, core) if key == NOBODY else key
