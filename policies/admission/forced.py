"""Forced: every missed expert enters, and the eviction policy says who leaves for it."""

from __future__ import annotations

from specmd.policy import policy


@policy("forced", axis="admission", source="SpecMD evaluation contract, rule 4")
class Forced:
    """Refuses nothing."""

    @classmethod
    def create(cls) -> Forced:
        """Build it."""
        return cls()
