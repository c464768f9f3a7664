"""LFRU: the smallest `uses / (events since the last touch + 1)` leaves first.

A blend of frequency and recency used by MoE servers: vLLM pull request 37190 and the
moe-cache-eval study, where it is the best causal policy. Counts survive eviction. The order of two
keys changes as time passes, so each choice looks at all residents, which lie side by side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    NOBODY,
    Core,
    Event,
    FloatArray,
    IntArray,
    KeyArray,
    World,
    evictable,
    policy,
)


@policy("lfru", source="vLLM pull request 37190; moe-cache-eval", remembers=True, compiled=True)
class LFRU(NamedTuple):
    """Residents of pool p are at places `p * span` to `p * span + residents[p] - 1`."""

    uses: IntArray  # (keys,) use counts
    key_at: KeyArray  # (keys,) by place: the key, its uses and its last touch
    uses_at: FloatArray
    last_at: FloatArray
    place: KeyArray  # (keys,)
    residents: IntArray  # (pools,)
    pool: KeyArray
    span: int

    @classmethod
    def create(cls, world: World) -> LFRU:
        """Start empty."""
        numbers, keys = np.zeros(world.num_keys, np.int64), np.zeros(world.num_keys, np.uint32)
        arrays = (numbers, keys, np.zeros(world.num_keys), np.zeros(world.num_keys), keys.copy())
        residents = np.zeros(world.pools, np.int64)
        return cls(*arrays, residents, world.pool, world.pool_span)

    def on_event(self, event: Event) -> None:
        """Count the use of every key of U."""
        for i in range(event.start, event.stop):
            self.uses[event.keys[i]] += 1

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Update the key's place."""
        self.uses_at[self.place[key]] = self.uses[key]
        self.last_at[self.place[key]] = event.clock

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Take the next place of the pool."""
        settle(self, key, pool * self.span + self.residents[pool])
        self.residents[pool] += 1
        self.uses_at[self.place[key]] = self.uses[key]
        self.last_at[self.place[key]] = event.clock

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Let the pool's last resident take the place."""
        self.residents[pool] -= 1
        end = pool * self.span + self.residents[pool]
        hole = self.place[key]
        self.uses_at[hole] = self.uses_at[end]
        self.last_at[hole] = self.last_at[end]
        settle(self, self.key_at[end], hole)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Compare uses / age by cross-multiplication; ask only a better key if it may leave."""
        now = event.clock + 1.0
        best, best_uses, best_age, ratio = NOBODY, 1.0, 0.0, np.inf
        for place in range(pool * self.span, pool * self.span + self.residents[pool]):
            age = now - self.last_at[place]
            if self.uses_at[place] <= ratio * age:  # rounded upwards; the products below are exact
                key = self.key_at[place]
                mine, its = self.uses_at[place] * best_age, best_uses * age
                if (mine < its or (mine == its and key > best)) and evictable(core, key):
                    best, best_uses, best_age = key, self.uses_at[place], age
                    ratio = best_uses / best_age * (1.0 + 1e-12)
        return best


def settle(policy: LFRU, key: int, place: int) -> None:
    """Put a key at a place."""
    policy.key_at[place] = key
    policy.place[key] = place
