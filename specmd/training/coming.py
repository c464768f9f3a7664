"""Fitting what the coming layers choose: the weights of `policies/prefetch/learned_mlp.py`.

Events are one sequence here, layer after layer and step after step. From the router weights of an
event, of the one before, and of the last event of the layer to come, a small network of each layer
gives a logit for every expert of each of the next DEPTH events.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from specmd.errors import SpecmdError
from specmd.trace import Trace
from specmd.training.fitting import Fitted, shuffled_rows

DEPTH = 2
HIDDEN = 64
MOST_STEPS = 10_000
MOST_NUMBERS = 150_000_000
BATCH = 128


def fit_mlp(
    trace: Trace, held_out: Trace | None, *, seed: int, epochs: int, shuffled: bool
) -> Fitted:
    """Fit by Adam on the cross-entropy of every expert; of a longer trace its first MOST_STEPS."""
    import torch

    from specmd.training.networks import arrays, descend, repeatable

    layers, experts = trace.header.num_layers, trace.header.num_experts

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            wide, out = 3 * experts, DEPTH * experts
            self.first = torch.nn.Parameter(torch.randn(layers, 1 + wide, HIDDEN) / wide**0.5)
            self.second = torch.nn.Parameter(torch.randn(layers, 1 + HIDDEN, out) / HIDDEN**0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inner = torch.baddbmm(self.first[:, :1], x.transpose(0, 1), self.first[:, 1:])
            out = torch.baddbmm(self.second[:, :1], torch.relu(inner), self.second[:, 1:])
            return out.transpose(0, 1)

    loss = torch.nn.functional.binary_cross_entropy_with_logits
    x, y = (torch.from_numpy(each) for each in _samples(trace))
    if shuffled:
        y = torch.from_numpy(shuffled_rows(y.numpy(), seed))
    with repeatable(seed):
        net, far = Net(), None
        losses = descend(net, x, y, loss, epochs=epochs, batch=BATCH, rate=1e-2)
        if held_out is not None:
            with torch.no_grad():
                inputs, targets = (torch.from_numpy(each) for each in _samples(held_out))
                far = loss(net(inputs), targets).item()
    settings = {"depth": DEPTH, "hidden": HIDDEN, "steps": len(x)}
    return Fitted(arrays(net), losses, far, settings)


def _samples(trace: Trace) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return inputs (steps, layers, 3 experts) and what comes (steps, layers, DEPTH experts)."""
    if trace.weights is None:
        raise SpecmdError("the trace has no router weights to learn from")
    layers, experts = trace.header.num_layers, trace.header.num_experts
    steps = min(trace.num_steps, MOST_STEPS, MOST_NUMBERS // (layers * experts * (3 + DEPTH)))
    stop = trace.step_starts[steps]
    ids = np.minimum(trace.expert_ids[:stop], experts).astype(np.int64)
    gates: Any = np.zeros(
        (steps, layers, experts + 1), np.float32
    )  # what is no expert goes to the end
    where = trace.step[:stop, None, None].astype(np.int64), np.arange(layers)[None, :, None], ids
    np.add.at(gates, where, trace.weights[:stop].astype(np.float32))
    events = gates[..., :experts].reshape(-1, experts)
    used = (events > 0).astype(np.float32)
    events /= np.maximum(events.sum(axis=1, keepdims=True), 1e-30)

    def shifted(rows: Any, by: int) -> Any:
        """Return of each event the one `by` later, zeros where there is none."""
        found = np.zeros_like(rows)
        here, there = (
            slice(max(0, -by), len(rows) - max(0, by)),
            slice(max(0, by), len(rows) + min(0, by)),
        )
        found[here] = rows[there]
        return found.reshape(steps, layers, experts)

    x = np.concatenate([shifted(events, by) for by in (0, -1, 1 - layers)], axis=2)
    y = np.concatenate([shifted(used, by) for by in range(1, DEPTH + 1)], axis=2)
    return x[:-1], y[:-1]
