"""LCP: the least `uses * base ** (steps since the last use / decay)` leaves first.

The "least cache priority" of two MLX servers for MoE models, mlx-moe and mlx-flash. Uses are of the
present stay, and do not fade by themselves: one more makes up for all the time that passed. As all
keys fade alike, `log(uses) + steps * log(1 / base) / decay` orders them without being updated.
Their factor for a layer's depth is left out: it is the same for all keys of a layer's pool. Of
equals the one touched longest ago leaves. A prefetched key has no use yet, and leaves first.
"""

from math import log
from typing import Annotated, NamedTuple, Self

import numpy as np
from pydantic import Field

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

Base = Annotated[float, Field(gt=0, le=1)]
Steps = Annotated[float, Field(gt=0, le=1e6)]


@policy("lcp", source="mlx-moe and mlx-flash", compiled=True)
class LCP(NamedTuple):
    """The residents by uses and last use; `rate` is what a step takes off the logarithm."""

    heap: Heap
    uses: FloatArray
    rate: float

    @classmethod
    def create(cls, world: World, *, base: Base = 0.25, decay: Steps = 128.0) -> Self:
        """Build the empty heap."""
        return cls(make_heap(world), np.zeros(world.num_keys), -log(base) / decay)

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Count one more."""
        self.uses[key] += 1
        rank = log(self.uses[key]) + self.rate * event.step
        settle_rank(self.heap, pool, key, rank, event.clock)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter with one use."""
        self.uses[key] = 1
        put(self.heap, pool, key, self.rate * event.step, event.clock)

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter without a use."""
        self.uses[key] = 0
        put(self.heap, pool, key, -np.inf, event.clock)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave."""
        drop(self.heap, pool, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose the least."""
        return least_evictable(self.heap, pool, core)
