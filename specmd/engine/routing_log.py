"""The routing a live run saw, as a trace: exactly what its decisions were made from.

The recorder computes lookahead scores many steps at once, the engine one step at a time, and the
two may differ in the last bit. A simulation of *this* trace therefore makes the same decisions as
the live run; of the recorder's it does unless a score lies within rounding of another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from specmd.engine.passes import Passes
from specmd.errors import SpecmdError
from specmd.trace import PREFILL, Trace
from specmd.trace.trace import build_trace

Array = npt.NDArray[Any]


class RoutingLog:
    """Grows by a layer at a time. `layers`, `experts` and `depth` (of lookahead) are the sizes."""

    def __init__(self, layers: int, experts: int, depth: int) -> None:
        self._layers, self._experts, self._depth = layers, experts, depth
        self._steps: list[dict[str, Array]] = []
        self._open: dict[str, list[Array]] = {}

    def add(
        self, layer: int, passes: Passes, ids: Array, weights: Array, scores: Array | None
    ) -> None:
        """Note one layer of the present pass.

        Args:
            layer: MoE layer; the last one completes the pass.
            passes: the present pass.
            ids: (T, K) choices of the tokens that count.
            weights: (T, K) their router weights, float16.
            scores: (T, D, E) lookahead scores, float32 of float16 values, or None.

        """
        if layer == 0:
            self._open = {"expert_ids": [], "weights": [], "lookahead": []}
        if len(self._open.get("expert_ids", [])) != layer:
            return  # a pass that was interrupted
        order = np.argsort(-weights.astype(np.float32), axis=-1, kind="stable")
        self._open["expert_ids"].append(np.take_along_axis(ids, order, -1))
        self._open["weights"].append(np.take_along_axis(weights, order, -1))
        if self._depth:
            none = np.full((len(ids), self._depth, self._experts), np.nan, np.float16)
            self._open["lookahead"].append(none if scores is None else scores.astype(np.float16))
        if layer + 1 == self._layers:
            live = passes.live
            step: dict[str, Array] = {
                name: np.stack(parts, axis=1) for name, parts in self._open.items() if parts
            }
            step["request"] = passes.request[live]
            step["token_ids"] = passes.token_ids[live]
            step["phase"] = np.full(len(ids), passes.phase, np.uint8)
            self._steps.append(step)
            self._open = {}

    def trace(self, header: dict[str, Any]) -> Trace:
        """Return all complete passes.

        Raises:
            SpecmdError: there is none.

        """
        if not self._steps:
            raise SpecmdError("no routing was logged: run the model inside the offload block")
        whole = {
            name: np.concatenate([step[name] for step in self._steps]) for name in self._steps[0]
        }
        number = np.arange(len(self._steps), dtype=np.int32)
        step = np.repeat(number, [len(s["phase"]) for s in self._steps])
        known, request = np.unique(whole.pop("request"), return_inverse=True)
        prompts = np.bincount(request[whole["phase"] == PREFILL], minlength=len(known))
        return build_trace(
            num_experts=self._experts,
            step=step,
            request=request,
            prompt_lengths=prompts,
            header=header,
            **whole,
        )
