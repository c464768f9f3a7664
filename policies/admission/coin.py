"""Coin: a missed key enters with a fixed probability: the control of every admission rule.

What is used often is thrown for often, so it gets in (CacheLib rejects so before its flash: B. Berg
et al., "The CacheLib caching engine", OSDI 2020, section 4.2). A rule that does no better knows
nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from specmd.policy import Core, Event, Share, World, fraction, mix, policy


@policy("coin", axis="admission", source="CacheLib, OSDI 2020", compiled=True)
class Coin(NamedTuple):
    """The probability."""

    seed: int
    chance: float

    @classmethod
    def create(cls, world: World, *, chance: Share = 0.5) -> Coin:
        """Build it."""
        return cls(world.seed, chance)

    def admits(self, key: int, pool: int, core: Core, event: Event) -> bool:
        """Throw for the key and the moment."""
        return fraction(mix(self.seed, event.clock), key) < self.chance
