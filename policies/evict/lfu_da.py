"""LFU-DA: the least `uses + age` leaves first; the age is what the last to leave had.

M. Arlitt, L. Cherkasova, J. Dilley, R. Friedrich, T. Jin, "Evaluating content management techniques
for web proxy caches", Performance Evaluation Review 27(4), 2000: LFU with dynamic aging. Uses are
of the present stay. Of equals the one touched longest ago leaves. A prefetch is a touch, no use.
"""

from typing import NamedTuple, Self

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


@policy("lfu_da", source="Arlitt et al., Performance Evaluation Review 27(4), 2000", compiled=True)
class LFUDA(NamedTuple):
    """The residents by uses and the age of the pool at their last touch."""

    heap: Heap
    uses: FloatArray  # (keys,)
    age: FloatArray  # (pools,)
    value: FloatArray  # (keys,) the rank

    @classmethod
    def create(cls, world: World) -> Self:
        """Build the empty heap."""
        uses, age = np.zeros(world.num_keys), np.zeros(world.pools)
        return cls(make_heap(world), uses, age, uses.copy())

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Count one more, at the present age."""
        self.uses[key] += 1
        self.value[key] = self.age[pool] + self.uses[key]
        settle_rank(self.heap, pool, key, self.value[key], event.clock)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter with one use."""
        self.uses[key] = 1
        self.value[key] = self.age[pool] + 1
        put(self.heap, pool, key, self.value[key], event.clock)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter without a use."""
        self.uses[key] = 0
        self.value[key] = self.age[pool]
        put(self.heap, pool, key, self.value[key], event.clock)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave; the pool is now as old as what left."""
        drop(self.heap, pool, key)
        self.age[pool] = max(self.age[pool], self.value[key])

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose the least."""
        return least_evictable(self.heap, pool, core)
