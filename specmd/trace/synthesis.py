"""Made-up traces, for tests and the quickstart only.

Real routing has structure that no generator copies, and conclusions drawn from invented traces are
the best known artefact of this field; the header therefore says ``kind: synthetic`` and every
report repeats it. What is modelled: some experts are popular (a Zipf law, other experts in other
layers), and a token tends to use its predecessor's experts again.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specmd.errors import SpecmdError
from specmd.trace.composition import interleave
from specmd.trace.header import DECODE, MAX_EXPERTS, PREFILL
from specmd.trace.trace import Trace, build_trace, id_dtype

Floats = NDArray[np.float64]


def synthetic(
    *,
    num_layers: int = 8,
    num_experts: int = 16,
    top_k: int = 4,
    num_requests: int = 8,
    prompt_length: int = 0,
    decode_length: int = 64,
    batch: int = 1,
    zipf: float = 0.8,
    reuse: float = 0.3,
    raggedness: float = 0.0,
    lookahead_depth: int = 0,
    lookahead_recall: float = 0.8,
    logits: bool = False,
    expert_bytes: int | None = None,
    model: str = "synthetic",
    seed: int = 0,
) -> Trace:
    """Generate a trace; the same arguments give the same trace.

    Args:
        num_layers: layers L.
        num_experts: experts E of a layer.
        top_k: experts K of a token in a layer.
        num_requests: requests R.
        prompt_length: tokens of each prefill, which is one wide step; 0 for none.
        decode_length: tokens decoded for each request.
        batch: requests in flight at a time (see `interleave`).
        zipf: exponent of the popularity law; 0 makes all experts equal.
        reuse: probability that an expert of the previous token of the request is kept.
        raggedness: share of `decode_length` by which a request may be shorter, 0..1.
        lookahead_depth: depth D of the lookahead scores; 0 for none.
        lookahead_recall: probability that a true expert is among the K highest scores at depth 1;
            at depth d it is this to the power d (exact where E >= 2K).
        logits: with router logits, of which the weights are the softmax over the chosen experts.
        expert_bytes: for the header.
        model: for the header.
        seed: of the random generator.

    Raises:
        SpecmdError: an argument is out of range.

    """
    _require(1 <= num_experts <= MAX_EXPERTS, "num_experts", num_experts, f"1..{MAX_EXPERTS}")
    _require(1 <= top_k <= num_experts, "top_k", top_k, f"1..{num_experts}")
    _require(0 <= lookahead_depth < max(2, num_layers), "lookahead_depth", lookahead_depth, "< L")
    for name, size in (("num_layers", num_layers), ("num_requests", num_requests)):
        _require(size >= 1, name, size, "1 or more")
    _require(prompt_length >= 0, "prompt_length", prompt_length, "0 or more")
    _require(decode_length >= 0, "decode_length", decode_length, "0 or more")
    _require(prompt_length + decode_length > 0, "decode_length", 0, "1 or more without a prompt")
    shares = (("reuse", reuse), ("raggedness", raggedness), ("lookahead_recall", lookahead_recall))
    for name, share in shares:
        _require(0 <= share <= 1, name, share, "0..1")
    _require(0 <= zipf <= 10, "zipf", zipf, "0..10")

    rng = np.random.default_rng(seed)
    popularity = np.arange(1, num_experts + 1, dtype=np.float64) ** -zipf
    layers = np.stack([rng.permutation(popularity) for _ in range(num_layers)])
    positions = prompt_length + decode_length
    ids = np.empty((num_requests, positions, num_layers, top_k), dtype=id_dtype(num_experts))
    weights = np.empty(ids.shape, dtype=np.float16)
    previous: NDArray[np.bool_] | None = None
    for position in range(positions):
        ids[:, position], weights[:, position], previous = _route(
            rng, layers, num_requests, top_k, reuse, previous
        )

    shortest = decode_length - math.floor(decode_length * raggedness)
    shortest = max(shortest, 0 if prompt_length else 1)
    lengths = prompt_length + rng.integers(shortest, decode_length + 1, size=num_requests)
    kept = np.arange(positions) < lengths[:, None]
    wide = np.broadcast_to(np.arange(positions) < prompt_length, kept.shape)
    begins = ~wide
    begins[:, 0] = True
    request, _ = np.nonzero(kept)
    chosen = ids[kept]
    extra: dict[str, Any] = {}
    if lookahead_depth:
        extra["lookahead"] = lookahead_scores(
            rng, chosen, num_experts, lookahead_depth, lookahead_recall
        )
    if logits:
        extra["logits"] = router_logits(rng, chosen, weights[kept], num_experts)
    if prompt_length:
        extra["prompt_lengths"] = np.full(num_requests, prompt_length)
    header = {
        "model": model,
        "expert_bytes": expert_bytes,
        "recorder": "specmd.trace.synthesis",
        "source": f"generated: seed {seed}, zipf {zipf}, reuse {reuse}",
        "license": "Apache-2.0",
        "kind": "synthetic",
    }
    trace = build_trace(
        chosen,
        num_experts=num_experts,
        step=np.cumsum(begins[kept]) - 1,
        request=request,
        phase=np.where(wide, PREFILL, DECODE)[kept],
        weights=weights[kept],
        header=header,
        **extra,
    )
    return trace if batch == 1 else interleave(trace, batch)


def _route(
    rng: np.random.Generator,
    popularity: Floats,
    num_requests: int,
    top_k: int,
    reuse: float,
    previous: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.int64], Floats, NDArray[np.bool_]]:
    # Exponential races: the K smallest of Exp(1) / popularity are a sample without replacement
    # that favours the popular. Experts kept from the previous token get a head start.
    shape = (num_requests, *popularity.shape)
    race = rng.standard_exponential(shape) / popularity
    if previous is not None and reuse > 0:
        race = np.where(previous & (rng.random(shape) < reuse), race * 1e-9, race)
    ids = np.argsort(race, axis=-1)[..., :top_k]
    gate = np.sort(rng.random((*shape[:-1], top_k)) + 0.05, axis=-1)[..., ::-1]
    used = np.zeros(shape, dtype=np.bool_)
    np.put_along_axis(used, ids, True, axis=-1)
    return ids, gate / gate.sum(axis=-1, keepdims=True), used


def router_logits(
    rng: np.random.Generator, ids: NDArray[Any], weights: NDArray[Any], num_experts: int
) -> NDArray[np.float16]:
    """Logits (tokens, layers, experts) of which weights are the softmax over the chosen."""
    shape = (*ids.shape[:-1], num_experts)
    chosen = np.log(np.maximum(weights.astype(np.float64), 1e-3))
    others = chosen.min(axis=-1, keepdims=True) - rng.standard_exponential(shape) - 0.01
    np.put_along_axis(others, ids.astype(np.int64), chosen, axis=-1)
    found: NDArray[np.float16] = others.astype(np.float16)
    return found


def lookahead_scores(
    rng: np.random.Generator, ids: NDArray[Any], num_experts: int, depth: int, recall: float
) -> NDArray[np.float16]:
    """Scores of each later layer's experts: (tokens, layers, depth, experts), see `synthetic`."""
    tokens, layers, top_k = ids.shape
    scores = np.full((tokens, layers, depth, num_experts), np.nan, dtype=np.float16)
    for ahead in range(1, depth + 1):
        true = ids[:, ahead:].astype(np.int64)
        guess = rng.random((tokens, layers - ahead, num_experts))
        seen = rng.random(true.shape) < recall**ahead
        # Found experts stand above the noise in 0..1, in order of rank; missed ones below it.
        found = np.where(seen, 2.0 + np.arange(top_k, 0, -1) / top_k, -rng.random(true.shape) - 1)
        np.put_along_axis(guess, true, found, axis=-1)
        scores[:, : layers - ahead, ahead - 1] = guess
    return scores


def with_scores(trace: Trace, *, recall: float = 0.8, seed: int = 0) -> Trace:
    """Return a trace with all that some policy may ask for: logits, lookahead, drafts.

    The logits are those of its choice; of the other scores, and of the drafts, a share of about
    `recall` of the true experts is right. What the trace has is kept, and its weights are.
    """
    rng = np.random.default_rng(seed)
    header, ids = trace.header, trace.expert_ids
    if header.ragged:
        raise SpecmdError("scores are made up for traces whose rows are full")
    depth = 1 if trace.lookahead is None else int(trace.lookahead.shape[2])
    made: dict[str, Any] = {
        name: lookahead_scores(rng, ids, header.num_experts, depth, recall)
        for name in ("lookahead", "lookahead_renormalised")
    }
    logits = rng.random((*ids.shape[:2], header.num_experts))
    ranks = np.broadcast_to(2.0 + np.arange(ids.shape[2], 0, -1) / ids.shape[2], ids.shape)
    np.put_along_axis(logits, ids.astype(np.int64), ranks, axis=-1)
    made["logits"] = logits.astype(np.float16)
    # Drafts: each token's experts, but that a place in five is left out.
    right = rng.random(ids.shape) < recall
    order = np.argsort(~right, axis=-1, kind="stable")
    drafted = np.where(right, ids.astype(np.int16), np.int16(-1))
    made["draft_ids"] = np.take_along_axis(drafted, order, -1)
    kept = {name: getattr(trace, name) for name in made if getattr(trace, name) is not None}
    unsaved = header.model_copy(update={"digest": ""})
    return replace(trace, header=unsaved, **made | kept)


def _require(valid: bool, name: str, value: float, allowed: str) -> None:
    if not valid:
        raise SpecmdError(f"synthetic trace: {name} is {value}, must be {allowed}")
