"""Next gate: apply the gate of a coming layer to the present layer's gate input.

A. Eliseev and D. Mazur, "Fast inference of mixture-of-experts language models with offloading",
arXiv:2312.17238. The residual stream changes little from layer to layer, so the guess is good. In
a batch, every token votes for its best `width` experts by rank.
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
    propose,
    tokens_of,
    vote,
)


@policy(
    "next_gate",
    axis="prefetch",
    source="arXiv:2312.17238",
    needs=["lookahead"],
    compiled=True,
    ahead="depth",
    computes="gates",
)
class NextGate(NamedTuple):
    """Scratch for the scores of one layer."""

    votes: FloatArray  # (experts,)
    scratch: FloatArray  # (experts,)
    depth: int
    width: int

    @classmethod
    def create(cls, world: World, *, depth: Count = 1, width: Width = 0) -> NextGate:
        """Propose each token's best `width` experts (0: top-k) of each of the next layers."""
        width = min(width or world.top_k, world.num_experts)
        return cls(np.zeros(world.num_experts), np.zeros(world.num_experts), depth, width)

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Propose the experts that the scores put in some token's top `width`."""
        begin, end = tokens_of(event, outlook)
        for ahead in range(1, min(self.depth, event.num_layers - 1 - event.layer) + 1):
            fill(self.votes, 0.0)
            for token in range(begin, end):
                row = outlook.lookahead[token, event.layer, ahead - 1]
                vote(self.votes, row, self.width, self.scratch)
            first = (event.layer + ahead) * event.num_experts
            for expert in range(event.num_experts):
                if self.votes[expert] > 0.0:
                    score = self.votes[expert] / ((end - begin) * (self.width + 1.0)) - ahead
                    propose(proposals, first + expert, event.clock + ahead, score)
