"""Cancel: by priority, and what the true routing proves wrong leaves the queue."""

from __future__ import annotations

from specmd.policy import Schedule, policy


@policy("cancel", axis="schedule", source="ProMoE, arXiv:2410.22134")
class Cancel:
    """Chooses the options of the link."""

    @classmethod
    def create(cls) -> Schedule:
        """Build it."""
        return Schedule(by_score=True, guard=False, cancel=True)
