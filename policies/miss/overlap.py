"""Overlap: resident experts compute while missing ones stream in; each starts on arrival."""

from __future__ import annotations

from specmd.policy import World, policy


@policy("overlap", axis="miss", source="arXiv:2312.17238")
class Overlap:
    """Computes what is there."""

    @classmethod
    def create(cls, world: World) -> Overlap:
        """Build it."""
        return cls()
