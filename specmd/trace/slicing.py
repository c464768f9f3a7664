"""Parts of traces, traces put end to end, and batches made of batch-1 recordings.

Every function returns a new trace whose steps and requests are numbered from 0 without gaps again,
and whose header says in `notes` what was done. A contiguous part shares memory with its source.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specmd.errors import SpecmdError
from specmd.trace.header import DECODE, Kind
from specmd.trace.trace import OPTIONAL, Array, Trace

_SAME = ("model", "num_layers", "num_experts", "top_k", "expert_bytes", "expert_bytes_by_layer")
_PER_TOKEN = (
    "expert_ids",
    "weights",
    "token_ids",
    "phase",
    "logits",
    "lookahead",
    "lookahead_renormalised",
)


def slice_tokens(trace: Trace, start: int = 0, stop: int | None = None) -> Trace:
    """Return tokens start..stop-1, as Python slices count; a step or request may be cut.

    Raises SpecmdError if nothing is left.
    """
    start, stop, _ = slice(start, stop).indices(trace.num_tokens)
    if start >= stop:
        raise SpecmdError(f"tokens {start}:{stop} of {trace.num_tokens}: nothing is left")
    return _renumbered(trace, slice(start, stop), trace.step, f"tokens {start}:{stop}")


def slice_steps(trace: Trace, start: int = 0, stop: int | None = None) -> Trace:
    """Return steps (forward passes) start..stop-1, as Python slices count.

    Raises SpecmdError if nothing is left.
    """
    start, stop, _ = slice(start, stop).indices(trace.num_steps)
    if start >= stop:
        raise SpecmdError(f"steps {start}:{stop} of {trace.num_steps}: nothing is left")
    first, last = np.searchsorted(trace.step, [start, stop]).tolist()
    return _renumbered(trace, slice(first, last), trace.step, f"steps {start}:{stop}")


def select_requests(trace: Trace, requests: Iterable[int] | slice) -> Trace:
    """Return only the tokens of some requests, in their order of execution.

    Args:
        trace: the source.
        requests: request numbers, or a slice of them such as ``slice(0, 10)``. Their order does not
            matter: the smallest becomes request 0.

    Raises:
        SpecmdError: a number is not a request of the trace, or nothing is left.

    """
    known = trace.num_requests
    chosen = list(range(known)[requests] if isinstance(requests, slice) else requests)
    if not chosen:
        raise SpecmdError("no request is selected: nothing is left")
    wrong = [number for number in chosen if not 0 <= number < known]
    if wrong:
        raise SpecmdError(f"request {wrong[0]} is not in the trace: it has 0..{known - 1}")
    wanted = np.zeros(known, dtype=np.bool_)
    wanted[chosen] = True
    rows = np.flatnonzero(wanted[trace.request])
    note = f"{int(wanted.sum())} of {known} requests"
    if rows[-1] - rows[0] + 1 == len(rows):
        return _renumbered(trace, slice(int(rows[0]), int(rows[-1]) + 1), trace.step, note)
    return _renumbered(trace, rows, trace.step, note)


def slice_layers(trace: Trace, count: int) -> Trace:
    """Return only the first `count` layers, as a shallower model would have routed.

    Lookahead scores of layers that are no longer there become NaN; shares memory where it can.

    Raises:
        SpecmdError: the trace has no so many layers.

    """
    layers = trace.header.num_layers
    if not 1 <= count <= layers:
        raise SpecmdError(f"{count} layers: the trace has 1 to {layers}")
    if count == layers:
        return trace
    arrays: dict[str, Any] = {}
    for name in ("expert_ids", "weights", "logits", "lookahead", "lookahead_renormalised"):
        array = getattr(trace, name)
        arrays[name] = None if array is None else array[:, :count]
        if array is not None and name.startswith("lookahead"):
            depth = np.arange(1, array.shape[2] + 1)
            gone = np.arange(count)[:, None] + depth >= count
            arrays[name] = np.where(gone[None, :, :, None], np.float16(np.nan), array[:, :count])
    notes = _joined((trace.header.notes, f"first {count} of {layers} layers"))
    sizes = trace.header.expert_bytes_by_layer
    update: dict[str, Any] = {"digest": "", "notes": notes, "num_layers": count}
    if sizes is not None:
        update["expert_bytes_by_layer"] = sizes[:count]
    header = trace.header.model_copy(update=update)
    return replace(trace, header=header, **arrays)


def concatenate(traces: Sequence[Trace]) -> Trace:
    """Return the traces one after another, as one trace.

    Optional arrays that some of the traces lack are left out; unknown prompt lengths become -1.

    Raises:
        SpecmdError: no trace is given, or they differ in model, layers, experts, top-k or sizes.

    """
    if not traces:
        raise SpecmdError("nothing to concatenate: give at least one trace")
    first = traces[0].header
    for trace in traces[1:]:
        for field in _SAME:
            mine, other = getattr(first, field), getattr(trace.header, field)
            if mine != other:
                raise SpecmdError(f"cannot concatenate: {field} is {mine} in one, {other} in other")
    steps = np.cumsum([0] + [trace.num_steps for trace in traces])
    counts = np.cumsum([0] + [trace.num_requests for trace in traces])
    arrays: dict[str, Any] = dict.fromkeys(OPTIONAL)
    for name in _PER_TOKEN:
        parts = [getattr(trace, name) for trace in traces]
        if any(part is None for part in parts):
            continue
        if name.startswith("lookahead") and len({part.shape[2] for part in parts}) > 1:
            continue
        arrays[name] = np.concatenate(parts)
    if any(trace.prompt_lengths is not None for trace in traces):
        arrays["prompt_lengths"] = np.concatenate(
            [
                np.full(trace.num_requests, -1, dtype=np.int32)
                if trace.prompt_lengths is None
                else trace.prompt_lengths
                for trace in traces
            ]
        )
    arrays["step"] = np.concatenate(
        [trace.step + np.int32(base) for trace, base in zip(traces, steps, strict=False)]
    )
    arrays["request"] = np.concatenate(
        [trace.request + np.int32(base) for trace, base in zip(traces, counts, strict=False)]
    )
    kinds = {trace.header.kind for trace in traces}
    kind: Kind = "synthetic" if "synthetic" in kinds else "imported"
    header = first.model_copy(
        update={
            "digest": "",
            "kind": first.kind if len(kinds) == 1 else kind,
            "ragged": any(trace.header.ragged for trace in traces),
            "complete": all(trace.header.complete for trace in traces),
            "source": _joined(trace.header.source for trace in traces),
            "license": _joined(trace.header.license for trace in traces),
            "notes": _joined(trace.header.notes for trace in traces),
        }
    )
    return Trace(header=header, **arrays)


def interleave(trace: Trace, batch: int) -> Trace:
    """Run recorded requests `batch` at a time, by continuous batching.

    Requests enter in their order. Each prefill step stays a step of its own, run when its request
    enters; a decode step then takes the next token of every request in flight; when a request ends,
    the next one takes its lane in the following step. Routing of a token does not depend on what
    else is in its batch, so this is what a batched run of the same requests would have recorded.

    Args:
        trace: batch-1 recordings (or any trace: it is taken apart into requests first).
        batch: requests in flight, at least 1. With 1, a batch-1 recording comes back as it was.

    Raises:
        SpecmdError: batch is smaller than 1.

    """
    if batch < 1:
        raise SpecmdError(f"batch {batch}: at least one request must be in flight")
    by_request = np.argsort(trace.request, kind="stable")
    request, step = trace.request[by_request], trace.step[by_request]
    phase = trace.phase[by_request]

    # A unit is what one request does in one forward pass: a prefill chunk or a decoded token.
    edge = np.ones(trace.num_tokens, dtype=np.bool_)
    edge[1:] = (np.diff(request) != 0) | (np.diff(step) != 0) | (phase[1:] != phase[:-1])
    starts = np.flatnonzero(edge)
    lengths = np.diff(np.append(starts, trace.num_tokens))
    owner = request[starts]
    decodes = phase[starts] == DECODE
    owned = np.bincount(owner[decodes], minlength=trace.num_requests)
    enters, lane = _lanes(owned, batch)

    # Decode unit j of a request runs at clock `enters + j`; a prefill runs just before the decode
    # step that its request joins.
    before = np.cumsum(decodes) - decodes - (np.cumsum(owned) - owned)[owner]
    clock = enters[owner] + before
    order = np.lexsort((np.arange(len(starts)), np.where(decodes, lane[owner], 0), decodes, clock))
    starts, lengths = starts[order], lengths[order]
    decodes, clock = decodes[order], clock[order]
    new_step = np.ones(len(order), dtype=np.bool_)
    new_step[1:] = ~(decodes[1:] & decodes[:-1] & (clock[1:] == clock[:-1]))
    offset = np.arange(trace.num_tokens) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows = by_request[np.repeat(starts, lengths) + offset]
    steps = np.repeat(np.cumsum(new_step) - 1, lengths)
    whole = np.empty(trace.num_tokens, dtype=np.int64)
    whole[rows] = steps
    return _renumbered(trace, rows, whole, f"interleaved, {batch} requests in flight")


def _lanes(units: NDArray[Any], batch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the clock at which each request enters, and its lane: the first lane to be free."""
    free = [(0, lane) for lane in range(batch)]
    enters = np.zeros(len(units), dtype=np.int64)
    lanes = np.zeros(len(units), dtype=np.int64)
    for request, count in enumerate(units.tolist()):
        clock, lane = free[0]
        enters[request], lanes[request] = clock, lane
        heapq.heapreplace(free, (clock + count, lane))
    return enters, lanes


def _renumbered(trace: Trace, rows: slice | NDArray[Any], step: Array, note: str) -> Trace:
    """Return the tokens `rows`, with steps (given for all tokens) and requests made dense."""
    arrays: dict[str, Any] = {}
    for name in _PER_TOKEN:
        array = getattr(trace, name)
        arrays[name] = None if array is None else array[rows]
    steps = step[rows]
    arrays["step"] = np.cumsum(np.diff(steps, prepend=steps[:1]) != 0, dtype=np.int32)
    kept = np.bincount(trace.request[rows], minlength=trace.num_requests) > 0
    number = (np.cumsum(kept) - 1).astype(np.int32)
    arrays["request"] = number[trace.request[rows]]
    if trace.prompt_lengths is not None:
        arrays["prompt_lengths"] = trace.prompt_lengths[kept]
    notes = _joined((trace.header.notes, note))
    header = trace.header.model_copy(update={"digest": "", "notes": notes})
    return replace(trace, header=header, **arrays)


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))
