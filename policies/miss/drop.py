"""Drop: a missing expert that no token gives much weight is left out.

BigMoeOnEdge, pull request 95: a miss is skipped if its weight is below `factor` / k, k the experts
of a token, and the rest is weighed anew. Weights are taken as shares of the token's, so that a
token's best expert, at 1 / k or more, always stays.
"""

from __future__ import annotations

from typing import NamedTuple

from specmd.policy import (
    DROP,
    FETCH,
    Core,
    Event,
    Rows,
    Share,
    World,
    needs_it,
    pairs,
    policy,
    share,
)


@policy(
    "drop",
    axis="miss",
    source="github.com/Helldez/BigMoeOnEdge #95",
    needs=["weights"],
    compiled=True,
    lossy=True,
    renormalises=True,
)
class Drop(NamedTuple):
    """The least share of a token's weight."""

    least: float

    @classmethod
    def create(cls, world: World, *, factor: Share = 0.5) -> Drop:
        """Leave out what weighs less than `factor` of an even share."""
        return cls(factor / world.top_k)

    def answer(self, key: int, event: Event, rows: Rows, core: Core) -> int:
        """Fetch what is worth it to some token."""
        expert = key - event.layer * event.num_experts
        for pair in range(pairs(rows)):
            if needs_it(rows, pair, expert) and share(rows, pair) >= self.least:
                return FETCH
        return DROP
