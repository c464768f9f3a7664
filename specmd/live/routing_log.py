"""The routing a live run saw, as a trace: exactly what its decisions were made from.

The recorder computes lookahead scores many steps at once, the engine one step at a time, and the
two may differ in the last bit. A simulation of *this* trace therefore makes the same decisions as
the live run; of the recorder's it does unless a score lies within rounding of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from specmd.errors import SpecmdError
from specmd.live.passes import Passes
from specmd.trace import PREFILL, Trace
from specmd.trace.trace import build_trace

Array = npt.NDArray[Any]
_LOGGED = {
    "lookahead": "lookahead",
    "renormalised": "lookahead_renormalised",
}
"""Names in a trace of what a prefetcher is shown."""


class RoutingLog:
    """Grows by a layer at a time. `layers` and `experts` are the sizes.

    Only references are kept while the model runs; the work is done when the trace is asked for.
    """

    def __init__(self, layers: int, experts: int) -> None:
        self._layers, self._experts = layers, experts
        self._steps: list[_Pass] = []
        self._open: _Pass | None = None

    def add(
        self,
        layer: int,
        passes: Passes,
        ids: Array,
        weights: Tensor,
        scores: Mapping[str, Array],
        *,
        logits: Array | None = None,
        half: bool = True,
    ) -> None:
        """Note one layer of the present pass.

        Args:
            layer: MoE layer; the last one completes the pass.
            passes: the present pass.
            ids: (T, K) choices of the tokens that count.
            weights: (tokens, K) router weights of all tokens, those that count or not.
            scores: by field of `Outlook`, lookahead scores (T, D, E), float32 of float16 values.
            logits: (T, E) router logits, float32 of float16 values, or None.
            half: keep the weights as float16, else as float32.

        """
        if layer == 0:
            live = None if passes.all_live else passes.live
            self._open = _Pass(half, passes.phases, live, passes.request, passes.token_ids)
        step = self._open
        if step is None or len(step.ids) != layer:
            return  # a pass that was interrupted
        step.ids.append(ids)
        step.weights.append(weights)
        step.scores.append(scores)
        if logits is not None:
            step.logits.append(logits.astype(np.float16))
        if layer + 1 == self._layers:
            self._steps.append(step)
            self._open = None

    def trace(self, header: dict[str, Any]) -> Trace:
        """Return all complete passes.

        Raises:
            SpecmdError: there is none.

        """
        if not self._steps:
            raise SpecmdError("no routing was logged: run the model inside the offload block")
        rows = [self._rows(step) for step in self._steps]
        whole: dict[str, Any] = {
            name: np.concatenate([step[name] for step in rows]) for name in rows[0]
        }
        number = np.arange(len(rows), dtype=np.int32)
        step = np.repeat(number, [len(s["phase"]) for s in rows])
        known, request = np.unique(whole.pop("request"), return_inverse=True)
        prompts = np.bincount(request[whole["phase"] == PREFILL], minlength=len(known))
        return build_trace(
            num_experts=self._experts,
            step=step,
            request=request,
            prompt_lengths=prompts,
            ragged=True,
            header=header,
            **whole,
        )

    def _rows(self, step: _Pass) -> dict[str, Array]:
        """Turn a pass into the rows of its T tokens that count, best expert first."""
        ids = np.stack(step.ids, axis=1)
        live = slice(None) if step.live is None else step.live
        kept = [host_weights(weights, half=step.half)[live] for weights in step.weights]
        weights = np.stack(kept, axis=1)
        ids = np.where(ids < self._experts, ids, -1)  # what stands for no expert comes last
        order = np.argsort(-np.where(ids < 0, -1, weights), axis=-1, kind="stable")
        found: dict[str, Array] = {
            "expert_ids": np.take_along_axis(ids, order, -1),
            "weights": np.take_along_axis(weights, order, -1),
            "request": step.request[live],
            "token_ids": step.token_ids[live],
            "phase": step.phase[live],
        }
        if step.logits:
            found["logits"] = np.stack(step.logits, axis=1)
        for shown, name in _LOGGED.items():
            if shown in step.scores[0]:
                scores = [each[shown].astype(np.float16) for each in step.scores]
                found[name] = np.stack(scores, axis=1)
        return found


@dataclass
class _Pass:
    """One pass: what its layers chose, and who its tokens were; `live` None is all of them."""

    half: bool
    phase: npt.NDArray[np.uint8]
    live: npt.NDArray[np.bool_] | None
    request: npt.NDArray[np.int32]
    token_ids: npt.NDArray[np.int32]
    ids: list[Array] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    logits: list[Array] = field(default_factory=list)
    scores: list[Mapping[str, Array]] = field(default_factory=list)


def host_weights(weights: Tensor, *, half: bool = True) -> Array:
    """Router weights as a trace has them: float16 in one that was recorded."""
    found = weights.float().cpu().numpy()
    return found.astype(np.float16) if half else found
