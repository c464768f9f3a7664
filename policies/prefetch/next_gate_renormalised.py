"""Next gate, re-normalised: the gate of a coming layer, asked as its own layer would ask it.

The input of layer l's gate has passed layer l's norm, whose weight w_l scales every channel; the
gate of layer l+d was trained on channels scaled by w_(l+d). So it is shown x * w_(l+d) / w_l: the
residual stream with its own norm, where `next_gate` shows it x (A. Eliseev and D. Mazur,
arXiv:2312.17238). In a batch, every token votes for its best `width` experts by rank.
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
    "next_gate_renormalised",
    axis="prefetch",
    source="arXiv:2312.17238, re-normalised",
    needs=["renormalised"],
    compiled=True,
    ahead="depth",
    computes="gates",
)
class NextGateRenormalised(NamedTuple):
    """Scratch for the scores of one layer."""

    votes: FloatArray  # (experts,)
    scratch: FloatArray  # (experts,)
    depth: int
    width: int

    @classmethod
    def create(cls, world: World, *, depth: Count = 1, width: Width = 0) -> NextGateRenormalised:
        """Propose each token's best `width` experts (0: top-k) of each of the next layers."""
        width = min(width or world.top_k, world.num_experts)
        return cls(np.zeros(world.num_experts), np.zeros(world.num_experts), depth, width)

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Propose the experts that the scores put in some token's top `width`."""
        begin, end = tokens_of(event, outlook)
        for ahead in range(1, min(self.depth, event.num_layers - 1 - event.layer) + 1):
            fill(self.votes, 0.0)
            for token in range(begin, end):
                row = outlook.renormalised[token, event.layer, ahead - 1]
                vote(self.votes, row, self.width, self.scratch)
            first = (event.layer + ahead) * event.num_experts
            for expert in range(event.num_experts):
                if self.votes[expert] > 0.0:
                    score = self.votes[expert] / ((end - begin) * (self.width + 1.0)) - ahead
                    propose(proposals, first + expert, event.clock + ahead, score)
