"""CLOCK: a hand sweeps from the oldest key; each use since spares a key one passing of the hand.

F. J. Corbato, "A paging experiment with the Multics system", MIT Project MAC, 1968; with a counter
of `bits` bits the generalised CLOCK of A. J. Smith, "Sequentiality and prefetching in database
systems", ACM TODS 3(3), 1978. A passed key goes to the front of a queue, which is where the hand
has left it. What is held and not spared stays where it is. The first use of a prefetched key is
its only one so far: it spares nothing.
"""

from typing import Annotated, NamedTuple, Self

from pydantic import Field

from specmd.policy import (
    NOWHERE,
    Core,
    Event,
    Queues,
    World,
    bring,
    count_use,
    depart,
    make_queues,
    move,
    policy,
    sweep,
)

LINE = 0


@policy("clock", source="Corbato, MIT Project MAC, 1968; Smith, ACM TODS 3(3), 1978", compiled=True)
class Clock(NamedTuple):
    """Keys by arrival or passing, the latest at the front, and the most uses that are counted."""

    queues: Queues
    most: int

    @classmethod
    def create(cls, world: World, *, bits: Annotated[int, Field(ge=1, le=8)] = 1) -> Self:
        """Build the empty queue."""
        return cls(make_queues(world, 1), 2**bits - 1)

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Count the use."""
        count_use(self.queues, key, self.most)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter at the front."""
        move(self.queues, pool, key, LINE)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter at the front, not used so far."""
        bring(self.queues, pool, key, LINE)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave the queue."""
        depart(self.queues, pool, key, NOWHERE)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Sweep."""
        return sweep(self.queues, pool, LINE, core)
