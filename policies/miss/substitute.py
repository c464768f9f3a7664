"""Substitute: in place of a missing expert a token executes the best-ranked one that is there.

The rule of DAOP in decode (Y. Zhang et al., arXiv:2501.10375) and of masked gating (SwapMoE, R.
Kong et al., arXiv:2308.15030): per token, the best-ranked READY expert that it does not execute
already; where there is none, the miss is fetched. Weights follow the model's rule.
"""

from __future__ import annotations

from typing import NamedTuple

from specmd.policy import (
    FETCH,
    Core,
    Event,
    Rows,
    Width,
    World,
    executes,
    is_ready,
    needs_it,
    pairs,
    policy,
    rank_experts,
    read_chances,
    replace,
)


@policy(
    "substitute",
    axis="miss",
    source="DAOP, arXiv:2501.10375",
    needs=["logits", "weights"],
    compiled=True,
    lossy=True,
)
class Substitute(NamedTuple):
    """Down to which rank an expert may stand in."""

    ranks: int

    @classmethod
    def create(cls, world: World, *, ranks: Width = 0) -> Substitute:
        """Look among the first `ranks` (0: all)."""
        return cls(min(ranks or world.num_experts, world.num_experts))

    def answer(self, key: int, event: Event, rows: Rows, core: Core) -> int:
        """Let each token take its next best."""
        expert = key - event.layer * event.num_experts
        for pair in range(pairs(rows)):
            if not needs_it(rows, pair, expert):
                continue
            token = pair // rows.top_k
            rank_experts(rows, token)
            read_chances(rows, token)
            for rank in range(self.ranks):
                other = rows.order[rank]
                if is_ready(core, event, other) and not executes(rows, token, other):
                    replace(rows, pair, other)
                    rows.weights[pair] *= rows.chance[other] / rows.chance[expert]
                    break
        return FETCH
