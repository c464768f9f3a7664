"""Draft: the experts that a draft model's tokens chose, known before the model's own step begins.

The idea of SP-MoE and MoE-SpeQ (abstracts): a draft of the next tokens tells the experts of all
layers at once, through the draft's hidden states and the model's gates. A trace has them as
`draft_ids`. Beyond layer `cutoff` nothing is prefetched: SP-MoE chooses the last layer whose
experts still arrive in drafting time and the computing time of the layers before it. What the draft
itself costs is not charged. In a batch, every token votes, best first.
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
)


@policy("draft", axis="prefetch", source="SP-MoE, MoE-SpeQ", needs=["draft"], compiled=True)
class Draft(NamedTuple):
    """Scratch for the votes of one layer."""

    votes: FloatArray  # (experts,)
    depth: int
    cutoff: int

    @classmethod
    def create(cls, world: World, *, depth: Count = 1, cutoff: Width = 0) -> Draft:
        """Propose the drafted experts of each of the next `depth` layers, up to `cutoff` (0: all).

        The first layer of a step is its own source; from there on all layers are known.
        """
        return cls(np.zeros(world.num_experts), depth, cutoff or world.num_layers)

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Propose what the step's drafts choose, the nearer layer first."""
        begin, end = tokens_of(event, outlook)
        last = min(event.num_layers - 1, self.cutoff)
        for ahead in range(1, min(self.depth, last - event.layer) + 1):
            fill(self.votes, 0.0)
            for token in range(begin, end):
                drafted = outlook.draft[token, event.layer + ahead]
                for place in range(len(drafted)):
                    if drafted[place] >= 0:
                        self.votes[drafted[place]] += 1.0 - place / (len(drafted) + 1.0)
            propose_votes(
                proposals, self.votes, event, ahead, 1.0 / (end - begin + 1), -float(ahead)
            )
