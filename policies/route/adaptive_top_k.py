"""Adaptive top-k: experts beyond the first are executed only if the token gives them weight.

AdapMoE (S. Zhong et al., arXiv:2408.10284), section on adaptive gating: the second of two experts
is left out where the loss that this costs, weight squared times the layer's sensitivity, is below a
threshold; here, with the sensitivity 1 in all layers, where its weight is below
sqrt(`threshold`). For more than two experts the same test is made of each but the first.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

from specmd.policy import (
    Core,
    Event,
    Rows,
    Share,
    World,
    chosen,
    execute,
    execute_only,
    policy,
    share,
)


@policy(
    "adaptive_top_k",
    axis="route",
    source="AdapMoE, arXiv:2408.10284",
    needs=["weights"],
    compiled=True,
    lossy=True,
)
class AdaptiveTopK(NamedTuple):
    """The least weight, as a share of the token's."""

    least: float

    @classmethod
    def create(cls, world: World, *, threshold: Share = 0.005) -> AdaptiveTopK:
        """Leave out what loses less than `threshold`."""
        return cls(sqrt(threshold))

    def route(self, event: Event, rows: Rows, core: Core) -> None:
        """Keep the first, and what weighs enough."""
        for token in range(rows.tokens[0]):
            first, done = token * rows.top_k, 0
            for place in range(chosen(rows, token)):
                if place == 0 or share(rows, first + place) >= self.least:
                    done = place + 1
            for place in range(done):
                execute(rows, token, place, rows.true_ids[first + place])
            execute_only(rows, token, done)
