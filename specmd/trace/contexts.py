"""How much each step has to attend to: its new tokens, and the contexts of its requests."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from specmd.trace.header import DECODE
from specmd.trace.trace import Trace

_decodes: WeakKeyDictionary[Trace, NDArray[np.bool_]] = WeakKeyDictionary()
_measured: WeakKeyDictionary[Trace, tuple[NDArray[Any], ...]] = WeakKeyDictionary()


def step_loads(trace: Trace) -> tuple[NDArray[Any], ...]:
    """Measure each step: new tokens, mean context, summed context, logits wanted.

    A token attends to all before it in its request, the prompt included also where its prefill was
    not recorded but its length is known. Returns four float arrays of shape (steps,), shared by all
    who ask: not to be written.
    """
    if trace not in _measured:
        _measured[trace] = _measure(trace)
    return _measured[trace]


def _measure(trace: Trace) -> tuple[NDArray[Any], ...]:
    starts = trace.step_starts
    order = np.argsort(trace.request, kind="stable")
    request = trace.request[order]
    first = np.flatnonzero(np.diff(request, prepend=-1))
    rank = np.arange(len(request)) - np.repeat(first, np.diff(np.append(first, len(request))))
    context = np.empty(len(request))
    context[order] = rank + 1
    if trace.prompt_lengths is not None:
        recorded = np.zeros(len(trace.prompt_lengths), bool)
        recorded[trace.request[trace.phase == 0]] = True
        prompt = np.where(recorded, 0, np.maximum(trace.prompt_lengths, 0))
        context += prompt[trace.request]
    tokens = np.diff(starts).astype(np.float64)
    total = np.add.reduceat(context, starts[:-1])
    step = np.repeat(np.arange(len(tokens)), np.diff(starts))
    # The last token of each request in each step reads its whole context and has its logits taken.
    pair = step.astype(np.int64) * (int(trace.request.max()) + 1) + trace.request
    by_pair = np.lexsort((context, pair))
    last = np.append(np.diff(pair[by_pair]) != 0, True)
    ends = by_pair[last]
    kv = np.bincount(step[ends], weights=context[ends], minlength=len(tokens))
    logits = np.bincount(step[ends], minlength=len(tokens)).astype(np.float64)
    return tokens, total / tokens, kv, logits


def decode_steps(trace: Trace) -> NDArray[np.bool_]:
    """Tell of each step, (steps,), whether a request decodes in it; not to be written."""
    if trace not in _decodes:
        found = np.zeros(trace.num_steps, np.bool_)
        step = np.repeat(np.arange(trace.num_steps), np.diff(trace.step_starts))
        found[step[trace.phase == DECODE]] = True
        _decodes[trace] = found
    return _decodes[trace]


def held_tokens(trace: Trace) -> int:
    """Most tokens whose keys and values one step reads, over its requests."""
    return int(step_loads(trace)[2].max())
