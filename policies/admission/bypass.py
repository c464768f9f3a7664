"""Bypass: at the end of an event the eviction policy's order says which of all may stay.

A miss that finds no free slot streams through; when the event is over, it and the residents are
ranked alike, and what is least worth a slot has none. So the order of the eviction policy refuses.
"""

from __future__ import annotations

from specmd.policy import policy


@policy("bypass", axis="admission", source="SpecMD evaluation contract, rule 4", bypass=True)
class Bypass:
    """Asks the order."""

    @classmethod
    def create(cls) -> Bypass:
        """Build it."""
        return cls()
