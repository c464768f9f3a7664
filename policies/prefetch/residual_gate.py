"""Residual gate: the next gate, corrected by what the layers in between add to it on average.

DALI and yalis ask W_(l+d) (x_l + r_l), r_l the mean over a calibration text of what the layers
between add to the residual stream. The gate is linear: that is W_(l+d) x_l plus a constant, the
mean of the true logits of layer l+d minus the lookahead scores. A trace has scores and no residual
streams, so the constant is learnt from those, on the *training* trace: the same map. (Where a gate
has a norm of its own before it, it is so up to that norm.) In a batch, every token votes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    Count,
    Event,
    FloatArray,
    Outlook,
    Proposals,
    Width,
    World,
    fill,
    policy,
    propose_votes,
    tokens_of,
    vote,
)


@policy(
    "residual_gate",
    axis="prefetch",
    source="DALI, yalis",
    needs=["lookahead", "training", "residuals"],
    compiled=True,
    ahead="depth",
    computes="gates",
)
class ResidualGate(NamedTuple):
    """The constants, and scratch for the scores of one layer."""

    more: FloatArray  # (layers, depth, experts)
    score: FloatArray  # (experts,)
    votes: FloatArray  # (experts,)
    depth: int
    width: int

    @classmethod
    def create(cls, world: World, *, depth: Count = 1, width: Width = 0) -> ResidualGate:
        """Propose each token's best `width` experts (0: top-k) of each of the next layers."""
        width, known = min(width or world.top_k, world.num_experts), world.training
        more = np.zeros((world.num_layers, depth, world.num_experts))
        for ahead in range(1, min(depth, world.num_layers - 1) + 1):
            assert known is not None
            true, seen = known.logits[:, ahead:], known.lookahead[:, :-ahead, ahead - 1]
            more[:-ahead, ahead - 1] = true.mean(0, np.float64) - seen.mean(0, np.float64)
        score, votes = np.zeros((2, world.num_experts))
        return cls(more, score, votes, depth, width)

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Propose the experts that the corrected scores put in some token's top `width`."""
        begin, end = tokens_of(event, outlook)
        for ahead in range(1, min(self.depth, event.num_layers - 1 - event.layer) + 1):
            fill(self.votes, 0.0)
            for token in range(begin, end):
                for expert in range(event.num_experts):
                    raw = float(outlook.lookahead[token, event.layer, ahead - 1, expert])
                    self.score[expert] = raw + self.more[event.layer, ahead - 1, expert]
                vote(self.votes, self.score, self.width, self.score)
            scale = 1.0 / ((end - begin) * (self.width + 1.0))
            propose_votes(proposals, self.votes, event, ahead, scale, -float(ahead))
