"""Staging: prefetches have slots of their own, and are admitted when they are used first.

As the double buffers of Pre-gated MoE (R. Hwang et al., ISCA 2024, arXiv:2308.12066): what was
foretold wrongly evicts nothing. The slots are the cache's own, so the policy has fewer; of each
pool they are half at most.
"""

from __future__ import annotations

from specmd.policy import Count, Schedule, policy


@policy("staging", axis="schedule", source="Pre-gated MoE, arXiv:2308.12066")
class Staging:
    """Chooses the options of the link."""

    @classmethod
    def create(cls, *, slots: Count = 16) -> Schedule:
        """Build it; `slots` are those that hold prefetches alone, over all pools."""
        return Schedule(by_score=True, guard=False, cancel=True, staging=slots)
