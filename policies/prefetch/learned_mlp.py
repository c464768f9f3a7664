"""Learned next layers: a small network a layer, from what is routed now to what comes.

ProMoE (arXiv:2410.22134) looks at hidden states; a trace has none, so the inputs here are router
weights, scaled to add up to 1: of this event, the one before, the last one of the layer that is
next. A hidden layer (ReLU) gives each expert of the next events a logit. `specmd train learned_mlp`
"""

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    Count,
    Event,
    FloatArray,
    ModelFile,
    Outlook,
    Proposals,
    Width,
    World,
    load_weights,
    policy,
    propose,
)


@policy(
    "learned_mlp",
    axis="prefetch",
    source="ProMoE",
    needs=["weights", "model"],
    compiled=True,
    ahead="depth",
)
class LearnedMLP(NamedTuple):
    """The networks, scratch for one, and the weights of each layer's last event."""

    first: FloatArray  # (layers, 1 + 3 * experts, hidden), the bias first
    second: FloatArray  # (layers, 1 + hidden, events ahead * experts), the bias first
    inner: FloatArray  # (hidden,)
    logit: FloatArray  # (events ahead * experts,)
    last: FloatArray  # (layers, experts)
    depth: int
    width: int

    @classmethod
    def create(
        cls, world: World, *, model: ModelFile = "", depth: Count = 1, width: Width = 0
    ) -> "LearnedMLP":
        """Propose `width` experts (0: as many as now) of the next `depth` layers known."""
        w, last = load_weights(model, "learned_mlp", world), (world.num_layers, world.num_experts)
        inner, logit = (np.zeros(w[name].shape[2]) for name in ("first", "second"))
        depth = min(depth, len(logit) // world.num_experts)
        return cls(w["first"], w["second"], inner, logit, np.zeros(last), depth, width)

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Note the event's weights, and propose by logit, the nearer layer first."""
        layer, layers, experts = event.layer, event.num_layers, event.num_experts
        total, self.last[layer] = 1e-30, 0.0
        for i in range(event.start, event.stop):
            total += event.gates[i]
        for i in range(event.start, event.stop):
            self.last[layer, event.keys[i] - layer * experts] = event.gates[i] / total
        add(self.inner, 0.0, 1.0, self.first, layer, 0)
        for i in range(3):
            of = (layer + (0, layers - 1, 1)[i]) % layers
            for e in range(experts):
                add(self.inner, 1.0, self.last[of, e], self.first, layer, 1 + i * experts + e)
        add(self.logit, 0.0, 1.0, self.second, layer, 0)
        for unit in range(len(self.inner)):
            add(self.logit, 1.0, max(self.inner[unit], 0.0), self.second, layer, 1 + unit)
        width = min(self.width if self.width > 0 else event.stop - event.start, experts)
        for rank in range(self.depth * width):
            ahead, best = rank // width, rank // width * experts
            for i in range(best, best + experts):
                best = i if self.logit[i] > self.logit[best] else best
            key = (layer + ahead + 1) % layers * experts + best - ahead * experts
            propose(proposals, key, event.clock + ahead + 1, -ahead - rank / 65536.0)
            self.logit[best] = -1e30


def add(out: FloatArray, kept: float, by: float, rows: FloatArray, layer: int, row: int) -> None:
    """Add a row of weights to what is kept of a sum."""
    for j in range(len(out) if by != 0.0 else 0):
        out[j] = kept * out[j] + by * rows[layer, row, j]
