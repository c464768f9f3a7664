"""Small networks, fitted by torch the same way every time: one thread, one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Net = Callable[[torch.Tensor], torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Draw from a seed and add up in one order, whatever the machine has threads for."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)


def descend(
    net: torch.nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    loss: Loss,
    *,
    epochs: int,
    batch: int,
    rate: float,
) -> list[float]:
    """Fit by Adam, its rate falling to 0; return the mean loss of each epoch."""
    optimiser = torch.optim.Adam(net.parameters(), lr=rate)
    steps = epochs * -(-len(x) // batch)
    falling = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps + 1)
    losses = []
    for _ in range(epochs):
        total = 0.0
        for rows in torch.split(torch.randperm(len(x)), batch):
            optimiser.zero_grad()
            value = loss(net(x[rows]), y[rows])
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            falling.step()
            total += value.item() * len(rows)
        losses.append(total / len(x))
    return losses


def arrays(net: torch.nn.Module, prefix: str = "") -> dict[str, npt.NDArray[Any]]:
    """Return the weights by name."""
    return {
        f"{prefix}{name}": np.ascontiguousarray(each.detach().numpy())
        for name, each in net.state_dict().items()
    }
