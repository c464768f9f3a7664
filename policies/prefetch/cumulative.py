"""Cumulative: fetch the smallest set of experts that the next gate gives the probability `p`.

"Dynamic, score-based prefetching" of SpecMD (arXiv:2602.03921, abstract; the exact rule is not
public: this reading is *inferred*), with the stopping rule of FineMoE. The scores are those of
`next_gate`; each token's set has no fewer than k experts and no more than 2k.
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
    policy,
    propose_votes,
    softmax,
    tokens_of,
    vote_until,
)


@policy(
    "cumulative",
    axis="prefetch",
    source="arXiv:2602.03921",
    needs=["lookahead"],
    compiled=True,
    ahead="depth",
    computes="gates",
)
class Cumulative(NamedTuple):
    """Scratch for the probabilities of one token, and their sums over the tokens."""

    sure: FloatArray  # (experts,) summed probability of what a token takes
    chance: FloatArray  # (experts,)
    scratch: FloatArray  # (experts,)
    depth: int
    p: float
    least: int
    most: int

    @classmethod
    def create(cls, world: World, *, depth: Count = 1, p: Share = 0.8) -> Cumulative:
        """Propose the likeliest experts of each of the next `depth` layers, `p` in all."""
        most = min(2 * world.top_k, world.num_experts)
        sure, chance, scratch = np.zeros((3, world.num_experts))
        return cls(sure, chance, scratch, depth, p, world.top_k, most)

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Propose for each token its best experts until they have `p`, scored by probability."""
        begin, end = tokens_of(event, outlook)
        for ahead in range(1, min(self.depth, event.num_layers - 1 - event.layer) + 1):
            fill(self.sure, 0.0)
            for token in range(begin, end):
                softmax(outlook.lookahead[token, event.layer, ahead - 1], self.chance)
                vote_until(self.sure, self.chance, self.p, self.least, self.most, self.scratch)
            propose_votes(proposals, self.sure, event, ahead, 1.0 / (end - begin), -float(ahead))
