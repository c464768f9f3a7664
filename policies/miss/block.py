"""Block: the layer's experts compute once all of them are there."""

from __future__ import annotations

from specmd.policy import World, policy


@policy("block", axis="miss", source="baseline", blocks=True)
class Block:
    """Waits for all."""

    @classmethod
    def create(cls, world: World) -> Block:
        """Build it."""
        return cls()
