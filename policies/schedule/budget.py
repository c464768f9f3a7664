"""Budget: so many prefetches are issued in a step, and no more; else as guard.

It bounds what a wrong predictor can cost a token (llama.cpp pull request 27861 caps the experts
that are brought in a step). Those of the first layers come first, for they are proposed first.
"""

from __future__ import annotations

from specmd.policy import Count, Schedule, policy


@policy("budget", axis="schedule", source="llama.cpp pull request 27861")
class Budget:
    """Chooses the options of the link."""

    @classmethod
    def create(cls, *, most: Count = 16, guard: bool = True) -> Schedule:
        """Build it; `most` is prefetches a step."""
        return Schedule(by_score=True, guard=guard, cancel=True, budget=most)
