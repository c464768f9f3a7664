"""None: the router's choice is executed as it is."""

from __future__ import annotations

from specmd.policy import World, policy


@policy("none", axis="route", source="baseline")
class TrueRouting:
    """Changes nothing."""

    @classmethod
    def create(cls, world: World) -> TrueRouting:
        """Build it."""
        return cls()
