"""GDSF: the least `uses * cost / size + age` leaves first; the age is what the last to leave had.

L. Cherkasova, "Improving WWW proxies performance with Greedy-Dual-Size-Frequency caching policy",
HP Laboratories 98-69R1, 1998. The experts of a pool are of one size, so the size is 1. What a use
is worth (`cost`): the tokens that chose the key, or the same for all (`even`: then it is LFU-DA).
Uses are of the present stay; of equals the one touched longest ago leaves; a prefetch is no use.
"""

from typing import Literal, NamedTuple, Self

import numpy as np

from specmd.policy import (
    Core,
    Event,
    FloatArray,
    Heap,
    World,
    drop,
    least_evictable,
    make_heap,
    policy,
    put,
    settle_rank,
)


@policy("gdsf", source="Cherkasova, HP Laboratories 98-69R1, 1998", compiled=True)
class GDSF(NamedTuple):
    """The residents by the worth of their uses and the age of the pool at their last touch."""

    heap: Heap
    worth: FloatArray  # (keys,) of the uses in this stay
    cost: FloatArray  # (keys,) of the use in this event
    age: FloatArray  # (pools,)
    value: FloatArray  # (keys,) the rank
    by_tokens: int

    @classmethod
    def create(cls, world: World, *, cost: Literal["tokens", "even"] = "tokens") -> Self:
        """Build the empty heap."""
        zeros, age = np.zeros(world.num_keys), np.zeros(world.pools)
        costs = np.ones(world.num_keys)
        return cls(make_heap(world), zeros, costs, age, zeros.copy(), int(cost == "tokens"))

    def on_event(self, event: Event) -> None:
        """Note what each use of this event is worth."""
        if self.by_tokens:
            for i in range(event.start, event.stop):
                self.cost[event.keys[i]] = event.tokens[i]

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Add the use, at the present age."""
        self.worth[key] += self.cost[key]
        self.value[key] = self.age[pool] + self.worth[key]
        settle_rank(self.heap, pool, key, self.value[key], event.clock)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter with this use."""
        self.worth[key] = self.cost[key]
        self.value[key] = self.age[pool] + self.worth[key]
        put(self.heap, pool, key, self.value[key], event.clock)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter without a use."""
        self.worth[key] = 0.0
        self.value[key] = self.age[pool]
        put(self.heap, pool, key, self.value[key], event.clock)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave; the pool is now as old as what left."""
        drop(self.heap, pool, key)
        self.age[pool] = max(self.age[pool], self.value[key])

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose the least."""
        return least_evictable(self.heap, pool, core)
