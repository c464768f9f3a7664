"""LIRS: keys used again after few others stay; the rest pass through a short queue.

S. Jiang, X. Zhang, "LIRS: an efficient low inter-reference recency set replacement policy", ACM
SIGMETRICS 2002. HIR keys have 1 % of the slots (10 % where no pool has 100), one at least, and more
where an event holds them all: then the oldest LIR key leaves. A prefetch joins the queue, no more.
"""

from typing import NamedTuple, Self

from specmd.policy import (
    NOWHERE,
    Core,
    Event,
    IntArray,
    Queues,
    World,
    back,
    length,
    make_queues,
    move,
    move_oldest,
    older,
    part_of,
    policy,
)

LIR, HIR, GHOST = range(3)  # GHOST: not resident, in the stack


@policy("lirs", source="Jiang and Zhang, SIGMETRICS 2002", remembers=True, compiled=True)
class LIRS(NamedTuple):
    """Keys by status (2 * C are known that left), the stack, and the most LIR keys of each pool."""

    status: Queues
    stack: Queues
    limit: IntArray

    @classmethod
    def create(cls, world: World) -> Self:
        """Build the empty stack."""
        short = part_of(world, 0.1 if world.capacity.max() < 100 else 0.01)
        return cls(make_queues(world, 3, 2.0), make_queues(world, 1), world.capacity - short)

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Go to the top of the stack."""
        use(self, key, pool)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter likewise: a ghost is in the stack."""
        use(self, key, pool)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Join the queue."""
        move(self.status, pool, key, HIR)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave; in the stack its place is kept."""
        move(self.status, pool, key, GHOST if self.stack.where[key] == 0 else NOWHERE)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Take the first in line, else the oldest LIR key."""
        return older(self.status, pool, HIR, LIR, core)


def use(policy: LIRS, key: int, pool: int) -> None:
    """Prune the stack, go to its top; be LIR if in it before, or while no key is HIR."""
    stack, status = policy.stack, policy.status
    while length(stack, pool, 0) > 0 and status.where[back(stack.lists, pool)] != LIR:
        end = move_oldest(stack, pool, 0, NOWHERE)
        if status.where[end] == GHOST:
            move(status, pool, end, NOWHERE)
    lirs, hirs = length(status, pool, LIR), length(status, pool, HIR)
    known = stack.where[key] == 0 or (lirs < policy.limit[pool] and hirs == 0)
    move(stack, pool, key, 0)
    move(status, pool, key, LIR if known else HIR)
    if length(status, pool, LIR) > policy.limit[pool]:
        move_oldest(status, pool, LIR, HIR)
    while length(status, pool, GHOST) > status.limit[pool]:
        move(stack, pool, move_oldest(status, pool, GHOST, NOWHERE), NOWHERE)
