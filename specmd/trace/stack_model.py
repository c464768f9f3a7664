"""Made-up routing by the LRU stack model, to have hit rates that are known.

Each layer keeps its experts in order of last use. A token draws `top_k` places of that order, by
weights that depend on the place alone, and its experts move to the front. An LRU cache of c experts
a layer hits what is drawn from the first c places, so any curve of hit rates over capacities can be
had by choosing weights (J. R. Spirn, "Distance string models for program behavior", Computer 9(11),
1976). Nothing else of real routing is modelled: no popularity beyond recency, no tie between
layers. For simulating what somebody measured where only hit rates were published, and for tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from specmd.errors import SpecmdError
from specmd.trace.header import DECODE, PREFILL
from specmd.trace.synthesis import lookahead_scores
from specmd.trace.trace import Trace, build_trace, id_dtype

Floats = NDArray[np.float64]


def stack_routed(
    weights: Floats,
    *,
    num_layers: int,
    top_k: int,
    decode_length: int,
    prompt_length: int = 0,
    lookahead_depth: int = 0,
    lookahead_recall: float = 0.8,
    expert_bytes: int | None = None,
    model: str = "made up",
    seed: int = 0,
) -> Trace:
    """Generate one request; the same arguments give the same trace.

    Args:
        weights: (experts,) how readily each place of the order of last use is drawn, nearest first;
            at least `top_k` of them above 0.
        num_layers: layers L.
        top_k: experts K of a token in a layer.
        decode_length: tokens decoded.
        prompt_length: tokens of the prefill, which is one wide step; 0 for none.
        lookahead_depth: depth D of the lookahead scores; 0 for none.
        lookahead_recall: as for `specmd.trace.synthetic`.
        expert_bytes: for the header.
        model: for the header.
        seed: of the random generator.

    Raises:
        SpecmdError: there are fewer places than experts of a token.

    """
    experts = len(weights)
    if int((weights > 0).sum()) < top_k:
        raise SpecmdError(f"{top_k} experts a token need as many places with a weight above 0")
    rng = np.random.default_rng(seed)
    order = np.stack([rng.permutation(experts) for _ in range(num_layers)])
    tokens = prompt_length + decode_length
    ids = np.empty((tokens, num_layers, top_k), dtype=id_dtype(experts))
    with np.errstate(divide="ignore"):
        slowness = 1.0 / weights
    for token in range(tokens):
        # The K smallest of Exp(1) / weight are a sample without replacement by weight.
        race = rng.standard_exponential(order.shape) * slowness
        drawn = np.zeros(order.shape, dtype=np.bool_)
        np.put_along_axis(drawn, np.argpartition(race, top_k - 1, axis=1)[:, :top_k], True, axis=1)
        front = order[drawn].reshape(num_layers, top_k)
        ids[token] = front
        order = np.concatenate([front, order[~drawn].reshape(num_layers, -1)], axis=1)
    step = np.maximum(np.arange(tokens) - max(prompt_length - 1, 0), 0)
    extra: dict[str, Any] = {}
    if lookahead_depth:
        extra["lookahead"] = lookahead_scores(rng, ids, experts, lookahead_depth, lookahead_recall)
    if prompt_length:
        extra["prompt_lengths"] = np.array([prompt_length])
    header = {
        "model": model,
        "expert_bytes": expert_bytes,
        "recorder": "specmd.trace.stack_model",
        "source": f"generated: seed {seed}, LRU stack model",
        "license": "Apache-2.0",
        "kind": "synthetic",
    }
    return build_trace(
        ids,
        num_experts=experts,
        step=step,
        request=np.zeros(tokens, dtype=np.int64),
        phase=np.where(np.arange(tokens) < prompt_length, PREFILL, DECODE),
        header=header,
        **extra,
    )
