"""Routing from outside: what stands in for the gates of a model whose weights mean nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor


@dataclass(frozen=True)
class PassTokens:
    """What the tokens of one forward pass are, row by row of its batch; all (rows * columns,).

    Attributes:
        live: which of them count; the others are padding.
        request: number of each one's request.
        phase: PREFILL or DECODE, uint8; a pass may hold both.
        token_ids: what is fed in, -1 where unknown.

    """

    live: npt.NDArray[np.bool_]
    request: npt.NDArray[np.int32]
    phase: npt.NDArray[np.uint8]
    token_ids: npt.NDArray[np.int32]


class Routing(Protocol):
    """Chooses experts in place of a model's gates, for each layer of each forward pass."""

    def tokens(self) -> PassTokens | None:
        """Return what the tokens of the present pass are; None: what the call of the model says."""
        ...

    def choose(self, layer: int, ids: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the present pass asks of a layer.

        Args:
            layer: MoE layer.
            ids: (T, K) what the gate chose.
            weights: (T, K) its weights.

        Returns:
            ids of the same shape, type and device, E where a token chose no more experts; weights
            of the same shape and device, float32: decisions take them as they are, kernels in the
            type of the gate's.

        """
        ...

    def logits(self, layer: int) -> npt.NDArray[np.float32] | None:
        """Router logits of a layer, (tokens that count, E), or None; asked for only if needed."""
        ...

    def scores(self, layer: int, name: str) -> npt.NDArray[np.float32] | None:
        """Scores of one of the needs of a prefetcher, as seen in a layer; None if there are none.

        `lookahead` or `renormalised`, (tokens that count, depth, experts), at least as deep as the
        prefetcher looks; asked for only where needed.
        """
        ...
