"""Traces from npz files of top-k choices, the form most published recordings take.

The array that holds the choices tells which form it is:

``expert_ids`` (T, L, K) or (T, L)
    tokens one after another; ``seq_start`` and ``seq_stop`` cut them into requests. Optional:
    ``router_weights``, ``probs`` or ``weights`` shaped like the ids; ``token_id`` or ``token_ids``
    (T,); ``prompt_length`` (R,); ``logits`` (T, L, E).
``selected`` (T, L) or (T, L, K)
    the same, with the request of each token in ``seq`` (T,).
``decode_ids`` (S, B, L, K) and ``prefill_ids`` (T, L, K)
    a batch of B requests decoded in S steps, and one wide prefill; ``phase`` chooses between them.
    Optional: ``decode_weights`` and ``prefill_weights``.

In ``decode`` every token is a step and requests follow one another; in ``prefill`` every request is
one step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specmd.errors import SpecmdError
from specmd.trace.header import DECODE, PREFILL
from specmd.trace.importers.source import Source
from specmd.trace.npz import open_archive
from specmd.trace.trace import Array, Trace, build_trace

_WEIGHTS = ("router_weights", "probs", "weights")
_TOKENS = ("token_id", "token_ids", "token")
CHOICES = ("expert_ids", "selected", "decode_ids", "prefill_ids")
_USED = ("expert_ids", "selected", "seq", "seq_start", "seq_stop", "prompt_length", "logits")
_BATCHED = ("decode_ids", "decode_weights", "prefill_ids", "prefill_weights")


def read_topk_npz(source: Source) -> Trace:
    """Build a trace from an npz of top-k choices; see the module for the forms understood.

    Raises SpecmdError: the file is damaged, or its content is not valid.
    """
    num_experts, phase, header = source.experts(), source.phase, source.header
    with open_archive(source.path) as archive:
        wanted = (*_USED, *_WEIGHTS, *_TOKENS, *_BATCHED)
        found = {name: archive.read(name) for name in wanted if name in archive.members}
    if f"{phase}_ids" in found:
        return _read_batched(found, num_experts, phase, header)
    for name in ("expert_ids", "selected"):
        if name in found:
            return _read_sequences(found, name, num_experts, phase, header)
    other = "prefill" if phase == "decode" else "decode"
    raise SpecmdError(f"has no {phase}_ids; try --phase {other}")


def _read_sequences(
    found: Mapping[str, Array],
    name: str,
    num_experts: int,
    phase: str,
    header: Mapping[str, Any] | None,
) -> Trace:
    ids = found[name]
    if ids.ndim not in (2, 3) or ids.shape[0] == 0:
        raise SpecmdError(f"{name} has shape {ids.shape}: (tokens, layers[, k]) is needed")
    order, request = _requests(found, ids.shape[0])
    if order is not None:
        ids = ids[order]
    weights = _first(found, _WEIGHTS)
    tokens = _first(found, _TOKENS)
    logits = found.get("logits")
    lengths = found.get("prompt_length")
    if lengths is not None and lengths.shape != (int(request[-1]) + 1,):
        raise SpecmdError(
            f"prompt_length has shape {lengths.shape}, but there are {int(request[-1]) + 1} "
            f"sequences"
        )
    return build_trace(
        ids,
        num_experts=num_experts,
        step=np.arange(len(request)) if phase == "decode" else request,
        request=request,
        phase=DECODE if phase == "decode" else PREFILL,
        weights=_reordered("weights", weights, order, found[name]),
        token_ids=_reordered("token_id", tokens, order, found[name]),
        logits=_reordered("logits", logits, order, found[name]),
        prompt_lengths=lengths,
        header=header,
    )


def _requests(
    found: Mapping[str, Array], tokens: int
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
    """Return which tokens to take, in order (None: all as they are), and the request of each."""
    if "seq_start" in found or "seq_stop" in found:
        if not ("seq_start" in found and "seq_stop" in found):
            raise SpecmdError("seq_start and seq_stop come together; one of them is missing")
        start = found["seq_start"].astype(np.int64)
        stop = found["seq_stop"].astype(np.int64)
        if start.ndim != 1 or start.shape != stop.shape or start.size == 0:
            raise SpecmdError(f"seq_start {start.shape} and seq_stop {stop.shape} do not match")
        bad = (start < 0) | (stop > tokens) | (start >= stop)
        if bad.any():
            row = int(np.argmax(bad))
            raise SpecmdError(
                f"sequence {row} runs from {int(start[row])} to {int(stop[row])}, but there are "
                f"{tokens} tokens"
            )
        lengths = stop - start
        request = np.repeat(np.arange(len(start)), lengths)
        if start[0] == 0 and stop[-1] == tokens and np.array_equal(start[1:], stop[:-1]):
            return None, request
        if int(lengths.sum()) > tokens:
            raise SpecmdError("sequences overlap: seq_start and seq_stop share tokens")
        offset = np.arange(len(request)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return np.repeat(start, lengths) + offset, request
    if "seq" in found:
        seq = found["seq"]
        if seq.shape != (tokens,):
            raise SpecmdError(f"seq has shape {seq.shape}, but there are {tokens} tokens")
        _, request = np.unique(seq, return_inverse=True)
        order = np.argsort(request, kind="stable")
        return order, request[order]
    return None, np.zeros(tokens, dtype=np.int64)


def _read_batched(
    found: Mapping[str, Array], num_experts: int, phase: str, header: Mapping[str, Any] | None
) -> Trace:
    ids, weights = found[f"{phase}_ids"], found.get(f"{phase}_weights")
    if weights is not None and weights.shape != ids.shape:
        raise SpecmdError(f"{phase}_weights {weights.shape} and {phase}_ids {ids.shape} differ")
    if phase == "prefill":
        if ids.ndim != 3:
            raise SpecmdError(f"prefill_ids has shape {ids.shape}: (tokens, layers, k) is needed")
        steps = np.zeros(ids.shape[0], dtype=np.int32)
        return build_trace(
            ids,
            num_experts=num_experts,
            step=steps,
            phase=PREFILL,
            weights=weights,
            header=header,
        )
    if ids.ndim != 4:
        raise SpecmdError(f"decode_ids has shape {ids.shape}: (steps, batch, layers, k) is needed")
    steps_count, batch, layers, top_k = ids.shape
    rows = (steps_count * batch, layers, top_k)
    return build_trace(
        ids.reshape(rows),
        num_experts=num_experts,
        step=np.repeat(np.arange(steps_count), batch),
        request=np.tile(np.arange(batch), steps_count),
        weights=None if weights is None else weights.reshape(rows),
        header=header,
    )


def _first(found: Mapping[str, Array], names: tuple[str, ...]) -> Array | None:
    return next((found[name] for name in names if name in found), None)


def _reordered(
    name: str, array: Array | None, order: NDArray[np.int64] | None, ids: Array
) -> Array | None:
    if array is None:
        return None
    if array.shape[:1] != ids.shape[:1]:
        raise SpecmdError(f"{name} has shape {array.shape}, but there are {ids.shape[0]} tokens")
    return array if order is None else array[order]
