"""Own gate: what the layer's own gate says of its own input. A control: its recall must be 100 %.

It comes too late to fetch anything, so all it proposes is redundant. But it says whether logits and
choices of a trace belong together, and whether recall is counted right: below 1, either the logits
are not what the router chooses by (a bias, limited groups), or something is wrong. Where rounding
has made scores equal, all that may have been chosen are proposed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    Event,
    FloatArray,
    Outlook,
    Proposals,
    World,
    fill,
    largest,
    policy,
    propose_votes,
    tokens_of,
)


@policy("own_gate", axis="prefetch", source="control", needs=["logits"], compiled=True)
class OwnGate(NamedTuple):
    """Scratch for the scores of one token, and what any token chooses."""

    chosen: FloatArray  # (experts,)
    score: FloatArray  # (experts,)
    top_k: int

    @classmethod
    def create(cls, world: World) -> OwnGate:
        """Propose each token's top-k of the present layer, due in the present event."""
        return cls(np.zeros(world.num_experts), np.zeros(world.num_experts), world.top_k)

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Propose all experts whose logit is at least the k-th largest of some token."""
        begin, end = tokens_of(event, outlook)
        fill(self.chosen, 0.0)
        for token in range(begin, end):
            row = outlook.logits[token, event.layer]
            for expert in range(event.num_experts):
                self.score[expert] = float(row[expert])
            least = 0.0
            for _ in range(self.top_k):
                expert = largest(self.score)
                least = self.score[expert]
                self.score[expert] = -1e300
            for expert in range(event.num_experts):
                if float(row[expert]) >= least:
                    self.chosen[expert] = 1.0
        propose_votes(proposals, self.chosen, event, 0, 0.0, 0.0)
