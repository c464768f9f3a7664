"""From the steps of a trace to the batches of a model's forward passes.

A step of a trace is a set of requests with some new tokens each: one in decode, many in prefill,
either in one step where a server mixes them. A model takes a rectangle. So a request becomes a
row, the longest gives the columns, and the shorter ones are padded on the left, as transformers'
own `generate` does; what a request has in its KV cache is padded on the left, too. Padding costs
attention and dense layers what tokens cost, and experts nothing. A server with ragged batches pays
for none of it: steps that mix a long prefill with many decodes are dearer here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from specmd.trace import PREFILL, Trace
from specmd.trace.trace import OPTIONAL, REQUIRED

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StepBatch:
    """One step as a rectangle of rows and columns.

    Attributes:
        number: of the step.
        first: its first token in the trace; its tokens are `first..first + tokens - 1`.
        phase: PREFILL if any of its tokens is, else DECODE.
        requests: (rows,) request of each row.
        new: (rows,) new tokens of each.
        context: (rows,) tokens each has in its KV cache already.

    """

    number: int
    first: int
    phase: int
    requests: Ints
    new: Ints
    context: Ints

    @property
    def tokens(self) -> int:
        """New tokens of the step."""
        return int(self.new.sum())

    @property
    def rows(self) -> int:
        """Requests of the step."""
        return len(self.new)

    @property
    def columns(self) -> int:
        """New tokens of a row, padding included."""
        return int(self.new.max())

    @property
    def cached(self) -> int:
        """Tokens of a row in the KV cache, padding included."""
        return int(self.context.max())

    @property
    def ragged(self) -> bool:
        """Whether there is padding anywhere."""
        return bool((self.new != self.columns).any() or (self.context != self.cached).any())

    def place(self) -> Ints:
        """Return (tokens,) where each token of the step lies in the flat rectangle, ascending."""
        return np.flatnonzero(_right(self.new, self.columns))

    def mask(self) -> npt.NDArray[np.int64]:
        """Return (rows, cached + columns) ones for what may be attended to, zeros for padding."""
        parts = [_right(self.context, self.cached), _right(self.new, self.columns)]
        return np.concatenate(parts, axis=1).astype(np.int64)

    def positions(self) -> Ints:
        """Return (rows, columns) the place of each token in its request; 0 for padding."""
        end = (self.context + self.new)[:, None]
        found: Ints = np.maximum(end - np.arange(self.columns, 0, -1), 0)
        return found


def in_rows(trace: Trace) -> Trace:
    """Return the trace with the tokens of each step put together by request.

    Requests keep the order in which they first appear in the step, tokens that of their request; a
    trace that is so already is returned as it is.
    """
    pair = trace.step.astype(np.int64) * trace.num_requests + trace.request
    _, where, inverse = np.unique(pair, return_index=True, return_inverse=True)
    order = np.argsort(where[inverse], kind="stable")
    if (np.diff(order) > 0).all():
        return trace
    per_token = [name for name in (*REQUIRED, *OPTIONAL) if name != "prompt_lengths"]
    moved: dict[str, Any] = {
        name: None if (held := getattr(trace, name)) is None else held[order] for name in per_token
    }
    return replace(trace, header=trace.header.model_copy(update={"digest": ""}), **moved)


def batches(trace: Trace) -> Iterator[StepBatch]:
    """Go through the steps of a trace that `in_rows` has put in order.

    A request's context is what it has had in earlier steps, and its prompt where that was not
    recorded but its length is known.
    """
    context = np.zeros(trace.num_requests, np.int64)
    if trace.prompt_lengths is not None:
        context[:] = np.maximum(trace.prompt_lengths, 0)
        context[trace.request[trace.phase == PREFILL]] = 0
    starts = trace.step_starts.tolist()
    for number, (first, last) in enumerate(pairwise(starts)):
        request = trace.request[first:last]
        edges = np.flatnonzero(np.diff(request, prepend=-1))
        requests = request[edges].astype(np.int64)
        new = np.diff(edges, append=last - first)
        phase = int(trace.phase[first:last].min())
        yield StepBatch(number, first, phase, requests, new, context[requests])
        context[requests] += new


def _right(counts: Ints, width: int) -> npt.NDArray[np.bool_]:
    """(rows, width) true in the last `counts` columns of each row."""
    return np.arange(width) >= (width - counts)[:, None]
