"""LFRU: the smallest `uses / (events since the last touch + 1)` leaves first.

A blend of frequency and recency used by MoE servers: vLLM pull request 37190 and the
moe-cache-eval study, where it is the best causal policy. Counts survive eviction. The order of two
keys changes as time passes, so each choice looks at all residents: first at `age / uses`, rounded
and without a branch, for what the best may be cannot be predicted; and only where two are too near
to be told apart, or the best is held, at the exact ratio.
"""

from typing import NamedTuple, Self

import numpy as np

from specmd.policy import (
    NOBODY,
    READY,
    Core,
    Event,
    FloatArray,
    IntArray,
    World,
    evictable,
    policy,
)


@policy("lfru", source="vLLM pull request 37190; moe-cache-eval", remembers=True, compiled=True)
class LFRU(NamedTuple):
    """Uses of each key, their inverse, and the last touch."""

    uses: IntArray  # (keys,)
    share: FloatArray  # (keys,)
    last: FloatArray  # (keys,)

    @classmethod
    def create(cls, world: World) -> Self:
        """Start with no use."""
        keys = world.num_keys
        return cls(np.zeros(keys, np.int64), np.full(keys, np.inf), np.zeros(keys))

    def on_event(self, event: Event) -> None:
        """Count the use of every key of U."""
        for i in range(event.start, event.stop):
            key = event.keys[i]
            self.uses[key] += 1
            self.share[key] = 1.0 / self.uses[key]
            self.last[key] = event.clock

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Touch."""
        self.last[key] = event.clock

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Take the best if it is clearly the best; else compare all exactly."""
        most, second, best, now = 0.0, 0.0, NOBODY, event.clock + 1.0
        full = incoming != NOBODY and core.num_free[pool] == 0  # a key in every slot, and no other
        for slot in range(core.first_slot[pool], core.first_slot[pool + full]):
            key = core.key_in[slot]
            age = now - self.last[key]
            value = age * self.share[key]
            value = value if age > 1.5 else 0.0  # touched in this event, and held
            low = value if value < most else most
            second = low if low > second else second
            best = key if value > most else best
            most = value if value > most else most
        if full and second < most * (1.0 - 1e-12) and evictable(core, best):
            return best
        best, ratio = NOBODY, np.inf
        for key in range(len(self.uses)):
            if core.pool[key] == pool and core.state[key] == READY and evictable(core, key):
                mine = self.uses[key] / (now - self.last[key])  # exact enough: no two round alike
                if mine <= ratio:
                    best, ratio = key, mine
        return best
