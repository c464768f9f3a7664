"""Routing from outside: what stands in for the gates of a model whose weights mean nothing."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor


class Routing(Protocol):
    """Chooses experts in place of a model's gates, for each layer of each forward pass."""

    def choose(self, layer: int, ids: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the present pass asks of a layer.

        Args:
            layer: MoE layer.
            ids: (T, K) what the gate chose.
            weights: (T, K) its weights.

        Returns:
            ids and weights of the same shapes, types and device.

        """
        ...

    def scores(self, layer: int) -> npt.NDArray[np.float32] | None:
        """Lookahead scores seen from a layer, (tokens that count, depth, experts), or None."""
        ...
