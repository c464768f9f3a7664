"""What makes a trace valid, checked once, when it is built or loaded.

Everything downstream (residency core, policies, clock) indexes arrays with these numbers without
looking, so a wrong id here would be a wrong result or a crash there. The checks read every id and
every weight, yet stay near memory speed: they work on chunks that fit the processor's cache, look
for duplicates by comparing whole columns, and test floats through their bit patterns.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specmd.errors import SpecmdError
from specmd.trace.header import DECODE, MAX_EXPERTS
from specmd.trace.trace import Array, Trace, id_dtype, no_expert

ROWS_PER_CHUNK = 1 << 16
_WIDEST_PAIRWISE_K = 16
_DIMENSIONS = {"lookahead": 4, "lookahead_renormalised": 4, "draft_ids": 3}


def check_trace(trace: Trace) -> None:
    """Check shapes, types and values of a trace.

    Raises:
        SpecmdError: names the first array, token and layer that is wrong.

    """
    check_layout(trace)
    none = no_expert(trace.expert_ids.dtype) if trace.header.ragged else None
    require_range(trace.expert_ids, trace.header.num_experts, none)
    _require_distinct(trace.expert_ids, none)
    if trace.weights is not None:
        _require_weights(trace.weights)
    if none is not None:
        _require_ends(trace, none)
    if trace.draft_ids is not None:
        _require_drafts(trace.draft_ids, trace.header.num_experts)
    _require_steps(trace.step)
    _require_requests(trace)
    if int(trace.phase.max()) > DECODE:
        token = int(np.argmax(trace.phase > DECODE))
        raise SpecmdError(
            f"token {token} has phase {int(trace.phase[token])}: 0 is prefill, 1 is decode"
        )


def check_layout(trace: Trace) -> None:
    """Check the type and the shape of every array against the header and each other."""
    header = trace.header
    layers, experts, top_k = header.num_layers, header.num_experts, header.top_k
    if top_k > experts:
        raise SpecmdError(f"top_k {top_k} exceeds the {experts} experts of a layer")
    if trace.expert_ids.ndim != 3 or trace.expert_ids.shape[0] == 0:
        raise SpecmdError(
            f"expert_ids has shape {trace.expert_ids.shape}: at least one token of shape "
            f"(layers, k) is needed"
        )
    tokens = trace.expert_ids.shape[0]
    if experts + header.ragged > MAX_EXPERTS:
        raise SpecmdError(f"a ragged trace has at most {MAX_EXPERTS - 1} experts a layer")
    sizes = header.expert_bytes_by_layer
    if sizes is not None and (len(sizes) != layers or min(sizes) < 1):
        raise SpecmdError(f"expert_bytes_by_layer needs {layers} positive sizes, one a layer")
    ids = np.dtype(id_dtype(experts, header.ragged)).name
    scores = ("float16", "float32")
    depth = trace.lookahead.shape[2:3] if trace.lookahead is not None else ()
    if not depth and trace.lookahead_renormalised is not None:
        depth = trace.lookahead_renormalised.shape[2:3]
    drafted = trace.draft_ids.shape[2:3] if trace.draft_ids is not None else ()
    requests = trace.prompt_lengths.shape[:1] if trace.prompt_lengths is not None else ()
    expected: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
        "expert_ids": ((ids,), (tokens, layers, top_k)),
        "step": (("int32",), (tokens,)),
        "request": (("int32",), (tokens,)),
        "phase": (("uint8",), (tokens,)),
        "weights": (scores, (tokens, layers, top_k)),
        "token_ids": (("int32",), (tokens,)),
        "prompt_lengths": (("int32",), requests),
        "logits": (("float16",), (tokens, layers, experts)),
        "lookahead": (("float16",), (tokens, layers, *depth, experts)),
        "lookahead_renormalised": (("float16",), (tokens, layers, *depth, experts)),
        "draft_ids": (("int16",), (tokens, layers, *drafted)),
    }
    for name, array in trace.arrays().items():
        dtypes, shape = expected[name]
        if array.dtype.name not in dtypes or not array.dtype.isnative:
            raise SpecmdError(f"{name} is {array.dtype}, not {' or '.join(dtypes)}")
        if array.shape != shape or array.ndim != _DIMENSIONS.get(name, array.ndim):
            raise SpecmdError(
                f"{name} has shape {array.shape}, but the header and the other arrays say {shape}"
            )


def require_range(expert_ids: Array, num_experts: int, none: int | None = None) -> None:
    """Check that every id is in 0..num_experts-1, or `none`; else name the token and the layer."""
    for start in range(0, expert_ids.shape[0], ROWS_PER_CHUNK):
        chunk = expert_ids[start : start + ROWS_PER_CHUNK]
        if int(chunk.max()) < num_experts and int(chunk.min()) >= 0:
            continue
        wrong = (chunk >= num_experts) | (chunk < 0)
        if none is not None:
            wrong &= chunk != none
            if not wrong.any():
                continue
        token, layer, rank = np.argwhere(wrong)[0].tolist()
        raise SpecmdError(
            f"expert id {int(chunk[token, layer, rank])} at token {start + token}, layer {layer}, "
            f"but a layer has {num_experts} experts (0..{num_experts - 1}): "
            f"correct the id or the number of experts"
        )


def _require_drafts(draft_ids: Array, num_experts: int) -> None:
    """Check drafted ids as chosen ones are; -1, which ends a row, is no expert."""
    try:
        require_range(draft_ids, num_experts, -1)
        _require_distinct(draft_ids, -1)
    except SpecmdError as error:
        raise SpecmdError(f"draft_ids: {error}") from None
    if (np.diff((draft_ids < 0).astype(np.int8), axis=2) < 0).any():
        raise SpecmdError("draft_ids: a row has an expert after the end of its experts")


def _require_ends(trace: Trace, none: int) -> None:
    """Check that rows end in `none`, if they hold it at all, and that it weighs nothing."""
    for start in range(0, trace.num_tokens, ROWS_PER_CHUNK):
        part = slice(start, start + ROWS_PER_CHUNK)
        missing = trace.expert_ids[part] == none
        if (missing[:, :, :-1] & ~missing[:, :, 1:]).any():
            raise SpecmdError("a row has an expert after the end of its experts")
        if trace.weights is not None and (trace.weights[part][missing] != 0).any():
            raise SpecmdError("a row has a weight after the end of its experts")


def _require_distinct(expert_ids: Array, none: int | None) -> None:
    _, layers, top_k = expert_ids.shape
    if top_k == 1:
        return
    rows = max(1, ROWS_PER_CHUNK // layers)
    for start in range(0, expert_ids.shape[0], rows):
        chunk = expert_ids[start : start + rows].reshape(-1, top_k)
        found = _duplicate_rows(chunk, none)
        if found.any():
            row = int(np.argmax(found))
            raise SpecmdError(
                f"token {start + row // layers}, layer {row % layers} lists an expert twice "
                f"({' '.join(map(str, chunk[row].tolist()))}): a token chooses distinct experts"
            )


def _duplicate_rows(rows: Array, none: int | None) -> NDArray[np.bool_]:
    top_k = rows.shape[1]
    if top_k > _WIDEST_PAIRWISE_K:
        ordered = np.sort(rows, axis=1)
        equal = ordered[:, 1:] == ordered[:, :-1]
        if none is not None:
            equal &= ordered[:, 1:] != none
        return np.asarray(equal.any(axis=1))
    columns = np.ascontiguousarray(rows.T)
    found = np.zeros(rows.shape[0], dtype=np.bool_)
    for first, second in combinations(range(top_k), 2):
        equal = columns[first] == columns[second]
        found |= equal if none is None else equal & (columns[second] != none)
    return found


def _require_weights(weights: Array) -> None:
    # As unsigned integers, the finite non-negative floats are exactly the patterns below infinity;
    # only -0.0 falls outside and needs the slower look.
    bits: Any = np.uint16 if weights.dtype == np.float16 else np.uint32
    infinity = int(np.asarray(np.inf, dtype=weights.dtype).view(bits))
    for start in range(0, weights.shape[0], ROWS_PER_CHUNK):
        chunk = np.ascontiguousarray(weights[start : start + ROWS_PER_CHUNK])
        if int(chunk.view(bits).max()) < infinity:
            continue
        bad = ~(np.isfinite(chunk) & (chunk >= 0))
        if bad.any():
            token, layer, rank = np.argwhere(bad)[0].tolist()
            raise SpecmdError(
                f"weight {float(chunk[token, layer, rank])} at token {start + token}, "
                f"layer {layer}: gate weights must be finite and not negative"
            )


def _require_steps(step: NDArray[np.int32]) -> None:
    if int(step[0]) != 0:
        raise SpecmdError(f"the first step is {int(step[0])}: steps are numbered from 0")
    jump = np.diff(step)
    wrong = (jump < 0) | (jump > 1)
    if wrong.any():
        token = int(np.argmax(wrong)) + 1
        raise SpecmdError(
            f"step goes from {int(step[token - 1])} to {int(step[token])} at token {token}: "
            f"steps may only stay or grow by one"
        )


def _require_requests(trace: Trace) -> None:
    known = trace.num_requests
    low, high = int(trace.request.min()), int(trace.request.max())
    if low < 0 or high >= known:
        raise SpecmdError(
            f"request {low if low < 0 else high} is out of range: requests are numbered 0..R-1, "
            f"and prompt_lengths has one entry for each (here {known})"
        )
    if known > trace.num_tokens or not np.bincount(trace.request, minlength=known).all():
        raise SpecmdError(
            "some requests have no token: requests must be numbered 0..R-1 without gaps"
        )
    lengths = trace.prompt_lengths
    if lengths is not None and lengths.size and int(lengths.min()) < -1:
        raise SpecmdError(f"prompt length {int(lengths.min())}: use -1 where it is not known")
