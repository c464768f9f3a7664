"""FIFO: prefetches use the link in the order in which they were issued."""

from __future__ import annotations

from specmd.policy import Schedule, policy


@policy("fifo", axis="schedule", source="most published systems")
class Fifo:
    """Chooses the options of the link."""

    @classmethod
    def create(cls) -> Schedule:
        """Build it."""
        return Schedule(by_score=False, guard=False, cancel=False)
