"""Score threshold: fetch as many experts as the next gate is sure enough of.

"Dynamic, score-based prefetching" of SpecMD (arXiv:2602.03921, abstract; the exact rule is not
public: this reading is *inferred*). The scores are those of `next_gate`; of each token, all experts
whose softmax probability is at least `tau` are proposed, no fewer than k and no more than 2k.
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
    Share,
    World,
    fill,
    largest,
    policy,
    propose_votes,
    softmax,
    tokens_of,
)


@policy(
    "score_threshold",
    axis="prefetch",
    source="arXiv:2602.03921",
    needs=["lookahead"],
    compiled=True,
    ahead="depth",
    computes="gates",
)
class ScoreThreshold(NamedTuple):
    """Scratch for the probabilities of one token, and their sums over the tokens."""

    sure: FloatArray  # (experts,) summed probability of what a token takes
    chance: FloatArray  # (experts,)
    depth: int
    tau: float
    least: int
    most: int

    @classmethod
    def create(cls, world: World, *, depth: Count = 1, tau: Share = 0.05) -> ScoreThreshold:
        """Propose all experts of probability `tau` or more of each of the next `depth` layers."""
        most = min(2 * world.top_k, world.num_experts)
        sure, chance = np.zeros((2, world.num_experts))
        return cls(sure, chance, depth, tau, world.top_k, most)

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Propose for each token its best experts down to `tau`, scored by probability."""
        begin, end = tokens_of(event, outlook)
        for ahead in range(1, min(self.depth, event.num_layers - 1 - event.layer) + 1):
            fill(self.sure, 0.0)
            for token in range(begin, end):
                softmax(outlook.lookahead[token, event.layer, ahead - 1], self.chance)
                for place in range(self.most):
                    expert = largest(self.chance)
                    if place >= self.least and self.chance[expert] < self.tau:
                        break
                    self.sure[expert] += max(self.chance[expert], 1e-9)
                    self.chance[expert] = -1.0
            propose_votes(proposals, self.sure, event, ahead, 1.0 / (end - begin), -float(ahead))
