"""Block: the layer's experts compute once all of them are there."""

from __future__ import annotations

from specmd.policy import MissHandling, policy


@policy("block", axis="miss", source="baseline")
class Block:
    """Waits for all."""

    @classmethod
    def create(cls) -> MissHandling:
        """Build it."""
        return MissHandling(blocks=True)
