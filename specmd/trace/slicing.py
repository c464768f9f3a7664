"""Parts of traces: tokens, steps, requests, layers.

Every function returns a new trace whose steps and requests are numbered from 0 without gaps again,
and whose header says in `notes` what was done. A contiguous part shares memory with its source.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specmd.errors import SpecmdError
from specmd.trace.trace import Array, Trace

PER_TOKEN = (
    "expert_ids",
    "weights",
    "token_ids",
    "phase",
    "logits",
    "lookahead",
    "lookahead_renormalised",
    "draft_ids",
)

_AHEAD = "lookahead", "lookahead_renormalised"


def slice_tokens(trace: Trace, start: int = 0, stop: int | None = None) -> Trace:
    """Return tokens start..stop-1, as Python slices count; a step or request may be cut.

    Raises SpecmdError if nothing is left.
    """
    start, stop, _ = slice(start, stop).indices(trace.num_tokens)
    if start >= stop:
        raise SpecmdError(f"tokens {start}:{stop} of {trace.num_tokens}: nothing is left")
    return renumbered(trace, slice(start, stop), trace.step, f"tokens {start}:{stop}")


def slice_steps(trace: Trace, start: int = 0, stop: int | None = None) -> Trace:
    """Return steps (forward passes) start..stop-1, as Python slices count.

    Raises SpecmdError if nothing is left.
    """
    start, stop, _ = slice(start, stop).indices(trace.num_steps)
    if start >= stop:
        raise SpecmdError(f"steps {start}:{stop} of {trace.num_steps}: nothing is left")
    first, last = np.searchsorted(trace.step, [start, stop]).tolist()
    return renumbered(trace, slice(first, last), trace.step, f"steps {start}:{stop}")


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
        return renumbered(trace, slice(int(rows[0]), int(rows[-1]) + 1), trace.step, note)
    return renumbered(trace, rows, trace.step, note)


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
    for name in ("expert_ids", "weights", "logits", *_AHEAD, "draft_ids"):
        array = getattr(trace, name)
        arrays[name] = None if array is None else array[:, :count]
        if array is not None and name.startswith("lookahead"):
            depth = np.arange(1, array.shape[2] + 1)
            gone = np.arange(count)[:, None] + depth >= count
            arrays[name] = np.where(gone[None, :, :, None], np.float16(np.nan), array[:, :count])
    notes = joined((trace.header.notes, f"first {count} of {layers} layers"))
    sizes = trace.header.expert_bytes_by_layer
    update: dict[str, Any] = {"digest": "", "notes": notes, "num_layers": count}
    if sizes is not None:
        update["expert_bytes_by_layer"] = sizes[:count]
    header = trace.header.model_copy(update=update)
    return replace(trace, header=header, **arrays)


def renumbered(trace: Trace, rows: slice | NDArray[Any], step: Array, note: str) -> Trace:
    """Return the tokens `rows`, with steps (given for all tokens) and requests made dense."""
    arrays: dict[str, Any] = {}
    for name in PER_TOKEN:
        array = getattr(trace, name)
        arrays[name] = None if array is None else array[rows]
    steps = step[rows]
    arrays["step"] = np.cumsum(np.diff(steps, prepend=steps[:1]) != 0, dtype=np.int32)
    kept = np.bincount(trace.request[rows], minlength=trace.num_requests) > 0
    number = (np.cumsum(kept) - 1).astype(np.int32)
    arrays["request"] = number[trace.request[rows]]
    if trace.prompt_lengths is not None:
        arrays["prompt_lengths"] = trace.prompt_lengths[kept]
    notes = joined((trace.header.notes, note))
    header = trace.header.model_copy(update={"digest": "", "notes": notes})
    return replace(trace, header=header, **arrays)


def joined(texts: Iterable[str]) -> str:
    """Join notes, each once."""
    return "; ".join(dict.fromkeys(text for text in texts if text))
