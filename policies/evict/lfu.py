"""LFU: the key used least often leaves first.

A. V. Aho, P. J. Denning, J. D. Ullman, "Principles of optimal page replacement", JACM 18(1), 1971.
Counts survive eviction ("perfect" LFU); `resident=true` forgets a key's count when it leaves. All
are halved every `aging` steps (0: never). Of equally used keys the one touched longest ago leaves
(`ties=recency`), or the largest (`ties=key`, as the counts of arXiv:2608.07911 have it). A prefetch
is a touch, no use.
"""

from typing import Literal, NamedTuple, Self

import numpy as np

from specmd.policy import (
    Core,
    Event,
    IntArray,
    Ladder,
    Width,
    World,
    climb,
    halve,
    last_evictable,
    make_ladder,
    policy,
    step_off,
    step_on,
)


@policy("lfu", source="Aho et al., JACM 18(1), 1971", remembers="resident=false", compiled=True)
class LFU(NamedTuple):
    """Use counts, and the residents by count and last touch (or nothing)."""

    ladder: Ladder
    uses: IntArray
    halved: IntArray  # (1,) how often it was time to halve
    resident: int
    by_recency: int
    aging: int

    @classmethod
    def create(
        cls,
        world: World,
        *,
        resident: bool = False,
        ties: Literal["recency", "key"] = "recency",
        aging: Width = 0,
    ) -> Self:
        """Build the empty ladder."""
        ladder = make_ladder(world.num_keys, world.pools)
        uses, halved = np.zeros(world.num_keys, np.int64), np.zeros(1, np.int64)
        return cls(ladder, uses, halved, int(resident), int(ties == "recency"), aging)

    def on_event(self, event: Event) -> None:
        """Count the use of every key of U, admitted or not; let counts age when it is time."""
        if self.aging > 0 and event.step // self.aging > self.halved[0]:
            self.halved[0] = event.step // self.aging
            halve(self.ladder, self.uses)
        for i in range(event.start, event.stop):
            self.uses[event.keys[i]] += 1

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Count one more."""
        climb(self.ladder, key, event.clock * self.by_recency)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter with the count so far."""
        step_on(self.ladder, pool, key, self.uses[key], event.clock * self.by_recency)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave; forget the count if it is of residents only."""
        step_off(self.ladder, key)
        if self.resident:
            self.uses[key] = 0

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose the least used."""
        return last_evictable(self.ladder.lists, pool, core)
