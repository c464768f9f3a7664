"""Deadline: what is due first uses the link first, and of that the best score; else as guard.

The order of EDF (C. L. Liu, J. W. Layland, JACM 20(1), 1973), with nothing dropped.
"""

from __future__ import annotations

from specmd.policy import Schedule, policy


@policy("deadline", axis="schedule", source="Liu and Layland, JACM 20(1), 1973")
class Deadline:
    """Chooses the options of the link."""

    @classmethod
    def create(cls, *, guard: bool = True) -> Schedule:
        """Build it; without `guard` a prefetch may evict a nearer one."""
        return Schedule(by_score=True, guard=guard, cancel=True, by_deadline=True)
