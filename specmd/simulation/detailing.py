"""From what a replay did to what a run says of each request, each expert and one step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from specmd.runs.details import Details
from specmd.runs.latency import request_seconds
from specmd.runs.metrics import PARTS
from specmd.simulation.events import EventStream
from specmd.trace import DECODE

if TYPE_CHECKING:
    from specmd.simulation.walk import Outcome
    from specmd.trace import Trace

_paired: WeakKeyDictionary[Trace, dict[int, tuple[Any, Any, Any]]] = WeakKeyDictionary()
_asked: WeakKeyDictionary[Trace, dict[int, npt.NDArray[np.int64]]] = WeakKeyDictionary()


def detail(trace: Trace, outcome: Outcome, *, unfinished: int | None = None) -> Details:
    """Say what is known of each request and expert; `trace` is the one that was run.

    `unfinished` is the request whose prefill may not be whole.
    """
    header, first, requests = trace.header, outcome.first_step, trace.num_requests
    shape = header.num_layers, header.num_experts
    none = np.full(requests, np.nan)
    ttft, tpot = none, none.copy()
    owner, step, decoded = _pairs(trace, first)
    decodes = np.bincount(owner[decoded], minlength=requests)
    if outcome.step_seconds is not None:
        ttft = request_seconds(trace, outcome.step_seconds, first, unfinished)
        each = outcome.step_seconds.sum(axis=1)
        spent = np.bincount(owner[decoded], weights=each[step[decoded] - first], minlength=requests)
        tpot = np.divide(spent, decodes, out=tpot, where=decodes > 0)
    accesses = misses = np.full(requests, -1, np.int64)
    notes = outcome.notes
    if notes is not None and len(owner) == trace.num_steps - first:
        asked = np.diff(notes.step_start)[first:]
        accesses, misses = (
            np.bincount(owner, weights=count, minlength=requests).astype(np.int64)
            for count in (asked, notes.step_misses[first:])
        )
    known = outcome.missed is not None
    by_key = [
        np.zeros(shape, np.int64) if count is None or not count.size else count.reshape(shape)
        for count in (outcome.missed, outcome.late, outcome.ahead)
    ]
    median = outcome.median
    return Details(
        request_ttft_s=ttft,
        request_tpot_s=tpot,
        request_decode_steps=decodes,
        request_accesses=accesses,
        request_misses=misses,
        asked=accesses_by_key(trace, first).reshape(shape) if known else by_key[0],
        missed=by_key[0],
        late=by_key[1],
        prefetched=by_key[2],
        step=np.array([] if median is None else [median[0]], np.int64),
        step_parts_s=np.zeros((0, len(PARTS))) if median is None else median[1],
    )


def accesses_by_key(trace: Trace, first: int) -> npt.NDArray[np.int64]:
    """Count the accesses of every key in the steps from `first` on, (keys,)."""
    known = _asked.setdefault(trace, {})
    if first not in known:
        stream = EventStream(trace)
        stream.split([first] if first else [])
        keys = trace.header.num_layers * trace.header.num_experts
        counts = np.zeros(keys, np.int64)
        for low, high in stream.stretches(first, stream.num_steps):
            chunk = stream.chunk(low, high)
            counts += np.bincount(chunk.keys[: chunk.start[-1]], minlength=keys)
        known[first] = counts
    return known[first]


def _pairs(trace: Trace, first: int) -> tuple[Any, Any, Any]:
    """Return request and step of each pair of the two that meet in a counted step.

    And whether the request decodes in it.
    """
    known = _paired.setdefault(trace, {})
    if first in known:
        return known[first]
    step = np.repeat(np.arange(trace.num_steps), np.diff(trace.step_starts))
    owner = trace.request.astype(np.int64)
    decoded = trace.phase == DECODE
    if trace.num_tokens > trace.num_steps:
        pair = (step * trace.num_requests + owner) * 2 + decoded
        found = np.unique(pair)
        owner, step = found // 2 % trace.num_requests, found // 2 // trace.num_requests
        decoded = found % 2 == 1
    counted = step >= first
    known[first] = owner[counted], step[counted], decoded[counted]
    return known[first]
