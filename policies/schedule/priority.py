"""Priority: of the queued prefetches the one with the best score uses the link first."""

from __future__ import annotations

from specmd.policy import Schedule, policy


@policy("priority", axis="schedule", source="MoE-Infinity, arXiv:2401.14361")
class Priority:
    """Chooses the options of the link."""

    @classmethod
    def create(cls) -> Schedule:
        """Build it."""
        return Schedule(by_score=True, guard=False, cancel=False)
