"""LFRU: the smallest `uses / (events since the last touch + 1)` leaves first.

A blend of frequency and recency used by MoE servers: vLLM pull request 37190 and the
moe-cache-eval study, where it is the best causal policy. Counts survive eviction. The order of two
keys changes as time passes, so each choice looks at all residents. They lie side by side, and are
looked at without a branch: what the best may be cannot be predicted.
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

WIDTH = 16


@policy("lfru", source="vLLM pull request 37190; moe-cache-eval", remembers=True, compiled=True)
class LFRU(NamedTuple):
    """Residents of pool p are at places `p * span` to `p * span + residents[p] - 1`."""

    uses: IntArray  # (keys,) use counts
    key_at: KeyArray  # (places,) the key, its uses, their inverse (0: nobody), its last touch
    uses_at: FloatArray
    share_at: FloatArray
    last_at: FloatArray
    place: KeyArray  # (keys,)
    residents: IntArray  # (pools,)
    span: int

    @classmethod
    def create(cls, world: World) -> LFRU:
        """Start empty."""
        span = -(-world.pool_span // WIDTH) * WIDTH
        keys, places = world.num_keys, world.pools * span
        return cls(
            uses=np.zeros(keys, np.int64),
            key_at=np.zeros(places, np.uint32),
            uses_at=np.zeros(places),
            share_at=np.zeros(places),
            last_at=np.zeros(places),
            place=np.zeros(keys, np.uint32),
            residents=np.zeros(world.pools, np.int64),
            span=span,
        )

    def on_event(self, event: Event) -> None:
        """Count the use of every key of U."""
        for i in range(event.start, event.stop):
            self.uses[event.keys[i]] += 1

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Update the key's place."""
        write(self, self.place[key], self.uses[key], event.clock)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Take the next place of the pool."""
        settle(self, key, pool * self.span + self.residents[pool])
        self.residents[pool] += 1
        write(self, self.place[key], self.uses[key], event.clock)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Let the pool's last resident take the place."""
        self.residents[pool] -= 1
        end = pool * self.span + self.residents[pool]
        hole = self.place[key]
        self.uses_at[hole] = self.uses_at[end]
        self.share_at[hole] = self.share_at[end]
        self.last_at[hole] = self.last_at[end]
        self.share_at[end] = 0.0
        settle(self, self.key_at[end], hole)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Take the best of the best block, if clearly the best; else compare all exactly."""
        first = pool * self.span
        stop = first + self.residents[pool]
        if incoming != NOBODY:  # then what was touched in this event, of age 1, is held
            now = event.clock + 1.0
            most, second, block = 0.0, 0.0, first
            for begin in range(first, stop, WIDTH):
                high = 0.0
                for place in range(begin, begin + WIDTH):
                    age = now - self.last_at[place]
                    value = age * self.share_at[place]
                    value = value if age > 1.5 else 0.0
                    high = value if value > high else high
                low = high if high < most else most
                second = low if low > second else second
                block = begin if high > most else block
                most = high if high > most else most
            high, where = 0.0, block
            for place in range(block, block + WIDTH):
                age = now - self.last_at[place]
                value = age * self.share_at[place]
                value = value if age > 1.5 else 0.0
                low = value if value < high else high
                second = low if low > second else second
                where = place if value > high else where
                high = value if value > high else high
            if second < most * (1.0 - 1e-12) and evictable(core, self.key_at[where]):
                return self.key_at[where]
        return least(self, first, stop, core, event)


def least(policy: LFRU, first: int, stop: int, core: Core, event: Event) -> int:
    """Compare uses / age by cross-multiplication; ask only a better key if it may leave."""
    now = event.clock + 1.0
    best, best_uses, best_age, ratio = NOBODY, 1.0, 0.0, np.inf
    for place in range(first, stop):
        age = now - policy.last_at[place]
        if policy.uses_at[place] <= ratio * age:  # rounded upwards; the products below are exact
            key = policy.key_at[place]
            mine, its = policy.uses_at[place] * best_age, best_uses * age
            if (mine < its or (mine == its and key > best)) and evictable(core, key):
                best, best_uses, best_age = key, policy.uses_at[place], age
                ratio = best_uses / best_age * (1.0 + 1e-12)
    return best


def settle(policy: LFRU, key: int, place: int) -> None:
    """Put a key at a place."""
    policy.key_at[place] = key
    policy.place[key] = place


def write(policy: LFRU, place: int, uses: int, clock: int) -> None:
    """Write down the uses of the key at a place, and that it was touched now."""
    policy.uses_at[place] = uses
    policy.share_at[place] = 1.0 / uses if uses > 0 else np.inf
    policy.last_at[place] = clock
