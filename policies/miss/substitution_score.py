"""Substitution by score: the resident expert most like a missing one stands in for it.

SpecMD (arXiv:2602.03921) replaces "missing experts with functionally similar alternatives" and
reports that this fails everywhere; how likeness is scored is not public. Here, *inferred*, it is
the correlation of the two experts' router logits over a training trace: what the router wants
together. The original's weight is kept. Where nothing that is there is like it, it is fetched.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    FETCH,
    Core,
    Event,
    FloatArray,
    Rows,
    Share,
    World,
    policy,
    replace_by_nearest,
)


@policy(
    "substitution_score",
    axis="miss",
    source="SpecMD, arXiv:2602.03921",
    needs=["logits", "training", "weights"],
    compiled=True,
    lossy=True,
)
class Substitution(NamedTuple):
    """How near each expert is to each other one of its layer."""

    near: FloatArray  # (layers * experts * experts,)
    least: float

    @classmethod
    def create(cls, world: World, *, least: Share = 0.0) -> Substitution:
        """Stand in what is like it by more than `least`."""
        seen = world.training
        likeness = np.zeros((world.num_layers, world.num_experts, world.num_experts))
        if seen is not None and len(seen.logits):
            for layer in range(world.num_layers):
                with np.errstate(invalid="ignore", divide="ignore"):
                    found = np.corrcoef(seen.logits[:, layer].T.astype(np.float64))
                likeness[layer] = np.nan_to_num(found)
        return cls(likeness.ravel(), least)

    def answer(self, key: int, event: Event, rows: Rows, core: Core) -> int:
        """Let the nearest that is there stand in for all tokens."""
        replace_by_nearest(rows, key, core, event, self.near, self.least)
        return FETCH
