"""None: nothing is fetched before it is demanded."""

from __future__ import annotations

from specmd.policy import World, policy


@policy("none", axis="prefetch", source="baseline")
class NoPrefetch:
    """Predicts nothing."""

    @classmethod
    def create(cls, world: World) -> NoPrefetch:
        """Build it."""
        return cls()
