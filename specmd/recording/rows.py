"""From gathered references to the rows of a trace.

One call turns a run of forward passes into arrays over tokens: experts sorted by falling gate
weight (the choice is the model's; some families hand it over unsorted), padding and ended requests
left out, passes that lose all their tokens that way not numbered at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from specmd.models.gates import halved
from specmd.models.lookahead import Lookahead
from specmd.recording.capture import Step, detached_rows
from specmd.trace.trace import id_dtype

Array = NDArray[Any]


class RowMaker:
    """Turns steps into rows, numbering the steps that keep a token.

    Args:
        num_experts: E.
        lookahead: scores the gate inputs that were kept.
        weights: whether rows carry the gate weights of the chosen experts.

    """

    def __init__(self, num_experts: int, lookahead: Lookahead, *, weights: bool) -> None:
        self._experts = num_experts
        self._lookahead = lookahead
        self._weights = weights
        self._next_step = 0

    def rows(self, steps: list[Step]) -> dict[str, Array] | None:
        """Return the rows of `steps` by array name, or None if no token of them counts."""
        about = self._about(steps)
        keep = about.pop("keep")
        if not keep.any():
            return None
        rows = {name: array[keep] for name, array in about.items()}
        weights = detached_rows([step.weights for step in steps]).float().numpy()[keep]
        ids = detached_rows([step.ids for step in steps]).numpy()[keep]
        order = np.argsort(-weights, axis=-1, kind="stable")
        rows["expert_ids"] = np.take_along_axis(ids, order, -1).astype(id_dtype(self._experts))
        if self._weights:
            rows["weights"] = np.take_along_axis(weights, order, -1).astype(np.float16)
        if steps[0].logits:
            rows["logits"] = halved(detached_rows([step.logits for step in steps]))[keep]
        if self._lookahead.depth:
            raw, renormalised = self._scores(steps)
            rows["lookahead"] = halved(raw)[keep]
            if renormalised is not None:
                rows["lookahead_renormalised"] = halved(renormalised)[keep]
        return rows

    def _about(self, steps: list[Step]) -> dict[str, Array]:
        """Per token, before anything is dropped: keep, step, request, phase, token id."""
        parts: dict[str, list[Array]] = {
            name: [] for name in ("keep", "step", "request", "phase", "token_ids")
        }
        passes = [step.about for step in steps]
        all_ids = _to_host([each.token_ids for each in passes])
        all_real = _to_host([each.real for each in passes])
        for each, tokens, real in zip(passes, all_ids, all_real, strict=True):
            shape = (each.batch.rows, each.columns)
            keep = np.broadcast_to(True if real is None else real.astype(np.bool_), shape)
            request = each.batch.first_request + np.arange(shape[0], dtype=np.int32)
            parts["keep"].append(keep.reshape(-1))
            parts["step"].append(np.full(keep.size, self._next_step, dtype=np.int32))
            parts["request"].append(np.repeat(request, shape[1]).astype(np.int32))
            parts["phase"].append(np.full(keep.size, each.phase, dtype=np.uint8))
            fed = np.full(shape, -1) if tokens is None else tokens
            parts["token_ids"].append(fed.reshape(-1).astype(np.int32))
            self._next_step += bool(keep.any())
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def _scores(self, steps: list[Step]) -> tuple[Tensor, Tensor | None]:
        """(T, L, D, E) lookahead scores on the host, raw and renormalised."""
        if steps[0].scores:  # a wide pass, alone in its batch of steps
            found = steps[0].scores
        else:
            layers = len(steps[0].inputs)
            found = [
                self._lookahead.scores(
                    layer, torch.cat([step.inputs[layer].detach() for step in steps]), self._experts
                )
                for layer in range(layers)
            ]
        raw = torch.stack([pair[0].cpu() for pair in found], dim=1)
        others = [pair[1].cpu() for pair in found if pair[1] is not None]
        return raw, torch.stack(others, dim=1) if others else None


def _to_host(tensors: list[Tensor | None]) -> list[NDArray[np.int64] | None]:
    """Copy small integer tensors to the host in one transfer."""
    present = [t for t in tensors if t is not None]
    if not present:
        return [None] * len(tensors)
    flat = torch.cat([t.reshape(-1).long() for t in present]).cpu().numpy()
    result: list[NDArray[np.int64] | None] = []
    start = 0
    for tensor in tensors:
        if tensor is None:
            result.append(None)
            continue
        result.append(flat[start : start + tensor.numel()].reshape(tuple(tensor.shape)))
        start += tensor.numel()
    return result
