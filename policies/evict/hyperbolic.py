"""Hyperbolic: of some keys, the one of fewest uses for its time in the cache leaves.

A. Blankstein, S. Sen, M. J. Freedman, "Hyperbolic caching: flexible caching for web applications",
USENIX ATC 2017. Looked at are `sample` slots from a random one on; a pool where none of their keys
may leave, or where keys streamed through, is looked at whole. Uses are of the present stay; time is
in events, this one included. Of equals the larger key leaves. A prefetch is no use.
"""

from typing import NamedTuple, Self

import numpy as np

from specmd.policy import (
    NOBODY,
    READY,
    Core,
    Count,
    Event,
    IntArray,
    World,
    below,
    evictable,
    policy,
)


@policy("hyperbolic", source="Blankstein, Sen and Freedman, USENIX ATC 2017", compiled=True)
class Hyperbolic(NamedTuple):
    """Uses of each key, when it entered, and how many draws there were."""

    uses: IntArray
    entered: IntArray
    draws: IntArray
    sample: int
    seed: int

    @classmethod
    def create(cls, world: World, *, sample: Count = 64) -> Self:
        """Start counting."""
        uses = np.zeros(world.num_keys, np.int64)
        return cls(uses, uses.copy(), np.zeros(1, np.int64), sample, world.seed)

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Count one more."""
        self.uses[key] += 1

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter with one use."""
        self.uses[key], self.entered[key] = 1, event.clock

    def on_prefetch(self, key: int, pool: int, event: Event) -> None:
        """Enter without a use."""
        self.uses[key], self.entered[key] = 0, event.clock

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Compare the keys of the slots that are drawn; where that is in vain, of the pool."""
        best, first, slots = NOBODY, core.first_slot[pool], core.first_slot[pool + 1]
        slots -= first
        self.draws[0] += 1
        place = below(max(1, slots), self.seed, self.draws[0])
        for i in range(min(slots, self.sample) if incoming != NOBODY else 0):
            key = core.key_in[first + (place + i) % slots]
            if key != NOBODY and evictable(core, key) and leaves(self, key, best, event.clock):
                best = key
        for key in range(len(core.state) if best == NOBODY else 0):
            able = core.pool[key] == pool and core.state[key] == READY and evictable(core, key)
            if able and leaves(self, key, best, event.clock):
                best = key
        return best


def leaves(policy: Hyperbolic, key: int, best: int, now: int) -> bool:
    """Tell whether a key leaves before the best so far, by products of whole numbers."""
    if best == NOBODY:
        return True
    mine = policy.uses[key] * (now + 1 - policy.entered[best])
    its = policy.uses[best] * (now + 1 - policy.entered[key])
    return mine < its or (mine == its and key > best)
