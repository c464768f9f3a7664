"""2Q: newcomers pass through a FIFO queue; what comes back after it has left it goes to an LRU one.

T. Johnson, D. Shasha, "2Q: a low overhead high performance buffer management replacement
algorithm", VLDB 1994, section 3.3. A1in is given a quarter of the slots, A1out remembers half as
many keys as there are slots; both have room for one at least. A use in A1in changes nothing. Where
the queue to take from holds only held keys, the other one gives. A prefetched key waits in A1in;
its first use does what its miss would have done.
"""

from typing import NamedTuple, Self

from specmd.policy import (
    NOWHERE,
    USED,
    Core,
    Cut,
    Event,
    IntArray,
    Queues,
    Share,
    World,
    bring,
    depart,
    first_use,
    is_known,
    length,
    make_queues,
    make_way,
    move,
    older,
    part_of,
    policy,
)

IN, MAIN, OUT = range(3)  # A1in, Am, A1out of the paper


@policy("two_q", source="Johnson and Shasha, VLDB 1994", remembers=True, compiled=True)
class TwoQ(NamedTuple):
    """The queues, and how many keys of each pool IN may have before it gives."""

    queues: Queues
    limit: IntArray

    @classmethod
    def create(cls, world: World, *, first: Cut = 0.25, ghosts: Share = 0.5) -> Self:
        """Build the empty queues."""
        return cls(make_queues(world, 3, ghosts), part_of(world, first))

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Go to the front of MAIN if there, or if remembered when prefetched."""
        origin = first_use(self.queues, key)
        if origin == OUT or (origin == USED and self.queues.where[key] == MAIN):
            move(self.queues, pool, key, MAIN)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter MAIN if remembered, else IN."""
        move(self.queues, pool, key, MAIN if is_known(self.queues, key) else IN)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter IN: nothing has been used."""
        bring(self.queues, pool, key, IN)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave; what leaves IN is remembered."""
        ghost = OUT if self.queues.where[key] == IN else NOWHERE
        depart(self.queues, pool, key, ghost)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Take from IN if it has more than its share, else from MAIN."""
        many = length(self.queues, pool, IN) > self.limit[pool]
        first, then = (IN, MAIN) if many else (MAIN, IN)
        key = older(self.queues, pool, first, then, core)
        return make_way(self.queues, pool, incoming, key)
