"""Lowest bit: every miss is fetched as a copy of few bits, which is smaller on the link.

SpecMD (arXiv:2602.03921) names it "fetch lowest bit"; its exact rule is not public, so this reading
is *inferred*: a missing expert comes at the lowest precision stored, and stays so until it leaves.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from specmd.policy import LOWBIT, Core, Event, Rows, World, policy


@policy(
    "fetch_lowest_bit",
    axis="miss",
    source="SpecMD, arXiv:2602.03921",
    needs=["weights"],
    compiled=True,
    lossy=True,
    bits="bits",
)
class LowestBit(NamedTuple):
    """Bits of a copy."""

    bits: int

    @classmethod
    def create(cls, world: World, *, bits: Literal[4, 8] = 4) -> LowestBit:
        """Fetch copies of `bits` bits a weight."""
        return cls(bits)

    def answer(self, key: int, event: Event, rows: Rows, core: Core) -> int:
        """Fetch the small copy."""
        return LOWBIT
