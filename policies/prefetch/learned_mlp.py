"""Learned next layers: a small network a layer, from what is routed now to what comes.

ProMoE (arXiv:2410.22134) looks at hidden states; a trace has none, so here the inputs are router
weights, scaled to add up to 1: of this event, of the one before, and of the last event of the layer
that is next. One hidden layer (ReLU) gives each expert of the next events a logit; the best are
proposed. `specmd train learned_mlp` fits the weights.
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
    source="ProMoE, arXiv:2410.22134",
    needs=["weights", "model"],
    compiled=True,
    ahead="depth",
)
class LearnedMLP(NamedTuple):
    """The networks, and the weights of each layer's last event."""

    first: FloatArray  # (layers, 3 * experts, hidden)
    first_bias: FloatArray  # (layers, hidden)
    second: FloatArray  # (layers, hidden, events ahead * experts)
    second_bias: FloatArray
    last: FloatArray  # (layers, experts)
    depth: int
    width: int

    @classmethod
    def create(
        cls, world: World, *, model: ModelFile = "", depth: Count = 1, width: Width = 0
    ) -> "LearnedMLP":
        """Propose `width` experts (0: as many as now) of the next `depth` layers known."""
        w = load_weights(model, "learned_mlp", world)
        last, known = np.zeros((world.num_layers, world.num_experts)), w["second"].shape[2]
        weights = (w["first"], w["first_bias"][:, 0], w["second"], w["second_bias"][:, 0])
        return cls(*weights, last, min(depth, known // world.num_experts), width)

    def predict(self, event: Event, outlook: Outlook, proposals: Proposals) -> None:
        """Note the event's weights, and propose by logit, the nearer layer first."""
        layer, layers, experts = event.layer, event.num_layers, event.num_experts
        total, self.last[layer] = 1e-30, 0.0
        for i in range(event.start, event.stop):
            total += event.gates[i]
        for i in range(event.start, event.stop):
            self.last[layer, event.keys[i] - layer * experts] = event.gates[i] / total
        inner = self.first_bias[layer].copy()
        for part in range(3):
            seen = (layer + layers - part) % layers if part < 2 else (layer + 1) % layers
            for expert in range(experts):
                if self.last[seen, expert] != 0.0:
                    inner += self.last[seen, expert] * self.first[layer, part * experts + expert]
        logit = self.second_bias[layer].copy()
        for unit in range(len(inner)):
            if inner[unit] > 0.0:
                logit += inner[unit] * self.second[layer, unit]
        width = self.width if self.width > 0 else event.stop - event.start
        for ahead in range(1, self.depth + 1):
            order = np.argsort(-logit[(ahead - 1) * experts : ahead * experts], kind="mergesort")
            for i in range(min(width, experts)):
                key = (layer + ahead) % layers * experts + order[i]
                propose(proposals, key, event.clock + ahead, -ahead - i / 65536.0)
