"""The gates' choice, taken from a trace: what a live run of random weights routes by."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from specmd.live.routing import PassTokens
from specmd.measurement.batches import StepBatch
from specmd.trace import Trace


class ForcedRouting:
    """Implements `specmd.live.routing.Routing` for the steps of one trace.

    The gates run, for what they cost; what they choose is replaced. Padding gets expert 0 and no
    weight: its choice is dead; where a ragged row ends, the id is E. Between steps (`hide`) the
    model is left to its own gates.

    Args:
        trace: its tokens in the order of the batches' rows, see `specmd.measurement.batches`.

    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._batch: StepBatch | None = None
        self._tokens: PassTokens | None = None
        self._ids = torch.empty(0, dtype=torch.int64)  # (layers, rows * columns, K)
        self._weights = torch.empty(0)

    def show(self, batch: StepBatch, device: torch.device) -> None:
        """Make a step the present one; its choices go to the device in one copy."""
        trace, self._batch = self._trace, batch
        place, mine = batch.place(), slice(batch.first, batch.first + batch.tokens)
        size = batch.rows * batch.columns

        def spread(values: npt.NDArray[Any], fill: int) -> npt.NDArray[Any]:
            """(tokens, ...) to (rows * columns, ...)."""
            whole = np.full((size, *values.shape[1:]), fill, values.dtype)
            whole[place] = values
            return whole

        experts = trace.header.num_experts
        ids = np.minimum(trace.expert_ids[mine].astype(np.int64), experts)
        if trace.weights is None:
            weights = np.where(ids < experts, np.float32(1 / ids.shape[-1]), np.float32(0))
        else:
            weights = trace.weights[mine].astype(np.float32)
        self._ids = torch.from_numpy(spread(ids, 0).swapaxes(0, 1).copy()).to(device)
        self._weights = torch.from_numpy(spread(weights, 0).swapaxes(0, 1).copy()).to(device)
        known = trace.token_ids
        fed = np.full(batch.tokens, -1, np.int32) if known is None else known[mine]
        self._tokens = PassTokens(
            live=spread(np.ones(batch.tokens, np.bool_), False),
            request=np.repeat(batch.requests.astype(np.int32), batch.columns),
            phase=spread(trace.phase[mine], batch.phase),
            token_ids=spread(fed, -1),
        )

    def hide(self) -> None:
        """Leave the model to itself."""
        self._batch = self._tokens = None
        self._ids, self._weights = self._ids[:0], self._weights[:0]

    def tokens(self) -> PassTokens | None:
        """Return what the tokens of the present step are; None between steps."""
        return self._tokens

    def choose(self, layer: int, ids: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the step's choice in a layer: ids (T, K), weights (T, K) float32."""
        if self._batch is None:
            return ids, weights.float()
        return self._ids[layer].to(ids.dtype), self._weights[layer]

    def logits(self, layer: int) -> npt.NDArray[np.float32] | None:
        """Router logits (tokens, E) that the trace holds, or None."""
        if self._batch is None or self._trace.logits is None:
            return None
        first = self._batch.first
        found = self._trace.logits[first : first + self._batch.tokens, layer]
        return np.asarray(found, np.float32)

    def scores(self, layer: int, name: str) -> npt.NDArray[np.float32] | None:
        """Scores of a layer that the trace holds, (tokens, ..., experts), or None."""
        held = {
            "lookahead": self._trace.lookahead,
            "renormalised": self._trace.lookahead_renormalised,
        }[name]
        if self._batch is None or held is None:
            return None
        first = self._batch.first
        return np.asarray(held[first : first + self._batch.tokens, layer], np.float32)
