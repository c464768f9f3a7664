"""Fitting when a key is used next: the weights of `policies/evict/learned_*.py`.

All learn from the same samples (`specmd.training.states`): what is known of a key at a moment, and
how much later it was used. Far uses are cut: that a key is not wanted soon is all that an eviction
has to know, and beyond a few cycles nothing can be told apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from specmd.trace import Trace
from specmd.training.fitting import Fitted, Floats, shuffled_rows
from specmd.training.states import States, sample_states

PER_STEP = 64
HORIZON = 4.0  # cycles
MOST = 1023  # cycles since a touch, as the policy counts them
LONG = 48  # uses of its layer, for CECAR
SHORT = max(8, LONG // 2)


def fit_linear(
    trace: Trace, held_out: Trace | None, *, seed: int, epochs: int, shuffled: bool
) -> Fitted:
    """Fit log2(1 + cycles until the next use), cut at HORIZON, by weighted least squares.

    A key counts as much as it has been used of late, for so likely it is to be resident. There is
    one solution, whatever `epochs`.
    """
    x, y, weight = _linear(_states(trace, seed), trace)
    y = shuffled_rows(y, seed) if shuffled else y
    # No BLAS: its sums depend on how many threads add them up.
    normal = np.einsum("ni,nj,n->ij", x, x, weight) + 1e-9 * np.eye(x.shape[1])
    found = np.linalg.solve(normal, np.einsum("ni,n,n->i", x, y, weight))

    def loss(x: Floats, y: Floats, weight: Floats) -> float:
        return float((weight * ((x * found).sum(axis=1) - y) ** 2).sum() / weight.sum())

    far = None if held_out is None else loss(*_linear(_states(held_out, seed), held_out))
    settings = {"horizon": HORIZON, "samples": len(y)}
    return Fitted({"weight": found[:-1]}, [loss(x, y, weight)], far, settings)


def _linear(states: States, trace: Trace) -> tuple[Floats, Floats, Floats]:
    """Compute features (samples, 8 and a constant), targets and weights."""
    layers = trace.header.num_layers
    n, u = np.minimum(np.ceil(states.age / layers), MOST), states.uses * layers / states.clock
    columns = (
        *(states.age / layers, np.log2(1 + n), 1 / (1 + n), np.sqrt(u), u),
        *(states.fast, states.slow, states.ahead / layers, np.ones(len(n))),
    )
    y = np.log2(1 + np.minimum(states.due / layers, HORIZON))
    return np.stack(columns, axis=1), y, states.slow + 1e-3


def fit_cecar(
    trace: Trace, held_out: Trace | None, *, seed: int, epochs: int, shuffled: bool
) -> Fitted:
    """Fit two networks 2-32-32-1 to distances cut at SHORT and LONG, by Adam on squared errors."""
    import torch

    from specmd.training.networks import arrays, descend, repeatable

    def loss(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.mse_loss(out[:, 0].abs(), y)

    x, distance = _cecar(_states(trace, seed), trace)
    distance = shuffled_rows(distance, seed) if shuffled else distance
    away = None if held_out is None else _cecar(_states(held_out, seed), held_out)
    tensors: dict[str, Any] = {}
    losses, far = np.zeros(epochs), 0.0
    for name, horizon in (("short", SHORT), ("long", LONG)):
        with repeatable(seed):
            sizes = (2, 32), (32, 32), (32, 1)
            one, two, three = (torch.nn.Linear(*each) for each in sizes)
            silu = torch.nn.SiLU()
            net = torch.nn.Sequential(one, silu, two, silu, three)

            def rows(x: Floats, d: Floats, h: int = horizon) -> tuple[torch.Tensor, torch.Tensor]:
                y = (np.minimum(d, h) - 1) / (h - 1)
                return torch.from_numpy(x).float(), torch.from_numpy(y).float()

            losses += descend(net, *rows(x, distance), loss, epochs=epochs, batch=4096, rate=1e-2)
            if away is not None:
                inputs, targets = rows(*away)
                with torch.no_grad():
                    far += float(loss(net(inputs), targets))
            layers = enumerate((one, two, three))
            tensors |= {k: v for i, each in layers for k, v in arrays(each, f"{name}.{i}.").items()}
    settings = {"short": SHORT, "long": LONG, "samples": len(x)}
    return Fitted(tensors, losses.tolist(), None if away is None else far, settings)


def _cecar(states: States, trace: Trace) -> tuple[Floats, Floats]:
    """Compute features (samples, 2), and the cycles until the next use."""
    n = np.maximum(np.ceil(states.age / trace.header.num_layers), 1)
    x = np.stack([1 / n, states.uses / states.most], axis=1)
    return x, np.ceil(states.due / trace.header.num_layers)


def _states(trace: Trace, seed: int) -> States:
    """Sample states, without the keys of the event itself: they are held."""
    found = sample_states(trace, per_step=PER_STEP, seed=seed)
    free = found.age > 0
    return States(*(each[free] for each in found))
