"""Latency: time to the first token and time per token, from the seconds of every step.

**TTFT** of a request runs from the start of its first prefill step to the end of its last one. A
prefill may be chunked; the steps of other requests that run in between delay it, and count.
**TPOT** is the duration of a decode step, one that makes a token for some request (a step that
also carries another request's prefill chunk is a decode step too: its tokens wait for all of it).
Both are reported as mean and percentiles and split into the parts of a step; the parts add up.
Throughput is in *output* tokens: those of the prompt are not what anybody waits for.

A request whose prefill was not recorded has no TTFT. Where its prompt length is known there is an
*estimate*, labelled so and kept apart: the prompt runs as one cold step, every distinct expert that
n tokens are expected to choose (routing taken as uniform and independent: `E (1 - (1 - K/E)^n)` a
layer) crosses the link once, and transfers overlap with compute perfectly. No cache, no prefetch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specmd.runs.metrics import PART_COLUMN, PARTS, PERCENTILES
from specmd.runs.run import Metrics
from specmd.trace import DECODE, PREFILL, Trace
from specmd.trace.contexts import decode_steps

Seconds = NDArray[np.float64]

_STALLS = [PART_COLUMN[name] for name, part in PARTS.items() if part.is_stall]


@dataclass(frozen=True)
class Latency:
    """The time metrics of a run, and what a reader must know of them."""

    metrics: Metrics
    warnings: list[str]


def latency(
    trace: Trace,
    step_seconds: Seconds,
    first_step: int,
    link_busy_s: float | None,
    disk_busy_s: float | None = None,
    *,
    unfinished: int | None = None,
) -> Latency:
    """Measure TTFT, TPOT and totals.

    Args:
        trace: the trace as it was run.
        step_seconds: (steps - first_step, PARTS), seconds of each counted step by part.
        first_step: the first counted step; the steps before it were warm-up.
        link_busy_s: seconds the link carried bytes.
        disk_busy_s: seconds the disk was read; None: there is none.
        unfinished: the request whose prefill may not be whole, because the trace ends in it.

    """
    found: Metrics = {}
    warnings: list[str] = []
    firsts = _ttft_parts(trace, step_seconds, first_step, unfinished)
    found.update(_spread("ttft", firsts))
    missing = trace.num_requests - len(firsts)
    if not len(firsts):
        warnings.append("no prefill is recorded and counted: TTFT is null, not a guess")
    elif missing:
        warnings.append(
            f"{missing} of {trace.num_requests} requests have no whole prefill recorded and "
            "counted: TTFT is over the others"
        )
    decodes = decode_steps(trace)[first_step:]
    steps = step_seconds if decodes.all() else step_seconds[decodes]
    found.update(_spread("tpot", steps))
    if not len(steps):
        warnings.append("the counted trace has no decode step: TPOT is null")

    total = step_seconds.sum(axis=0)
    total_s = float(total.sum())
    found["total_s"] = total_s
    for part, seconds in zip(PARTS, total.tolist(), strict=True):
        found[f"total_{part}_s"] = seconds
    counted = trace.phase[int(trace.step_starts[first_step]) :]
    tokens = int((counted == DECODE).sum()) + len(firsts)
    stall_s = float(total[_STALLS].sum())
    found["tokens_per_s"] = tokens / total_s if total_s > 0 else None
    found["stall_share"] = stall_s / total_s if total_s > 0 else None
    for name, busy_s in (("link", link_busy_s), ("disk", disk_busy_s)):
        known = busy_s is not None and total_s > 0
        found[f"{name}_busy_share"] = busy_s / total_s if known and busy_s is not None else None
    return Latency(found, warnings)


def whole_prompts(trace: Trace, unfinished: int | None = None) -> NDArray[np.bool_]:
    """Return (R,) of which requests the whole prompt is recorded, as far as that is known."""
    count = np.bincount(trace.request[trace.phase == PREFILL], minlength=trace.num_requests)
    whole = count > 0
    if trace.prompt_lengths is not None:
        whole &= (trace.prompt_lengths < 0) | (count >= trace.prompt_lengths)
    if unfinished is not None:
        whole[unfinished] = False
    return whole


def unfinished_prompt(whole: Trace, tokens: int | None = None) -> int | None:
    """Return the request whose prompt may go on behind the first `tokens`, as these number it."""
    tokens = whole.num_tokens if tokens is None else tokens
    cut = tokens < whole.num_tokens or not whole.header.complete
    if not cut or whole.phase[tokens - 1] != PREFILL:
        return None
    return int(np.searchsorted(np.unique(whole.request[:tokens]), whole.request[tokens - 1]))


def request_seconds(
    trace: Trace, step_seconds: Seconds, first_step: int, unfinished: int | None = None
) -> Seconds:
    """Return the seconds to its first token of each request, (requests,); NaN if not counted."""
    found = np.full(trace.num_requests, np.nan)
    whole, parts = _whole_ttft(trace, step_seconds, first_step, unfinished)
    found[whole] = parts.sum(axis=1)
    return found


def _ttft_parts(
    trace: Trace, step_seconds: Seconds, first_step: int, unfinished: int | None
) -> Seconds:
    """Return (requests with a whole counted prefill, PARTS) seconds."""
    return _whole_ttft(trace, step_seconds, first_step, unfinished)[1]


def _whole_ttft(
    trace: Trace, step_seconds: Seconds, first_step: int, unfinished: int | None
) -> tuple[NDArray[np.bool_], Seconds]:
    """Return (R,) which requests have a whole counted prefill, and their (n, PARTS) seconds."""
    requests = trace.num_requests
    rows = trace.phase == PREFILL
    if not rows.any():
        return np.zeros(requests, np.bool_), np.zeros((0, step_seconds.shape[1]))
    owner, steps = trace.request[rows], trace.step[rows].astype(np.int64)
    begin = np.full(requests, trace.num_steps, np.int64)
    end = np.full(requests, -1, np.int64)
    np.minimum.at(begin, owner, steps)
    np.maximum.at(end, owner, steps)
    whole = whole_prompts(trace, unfinished) & (begin >= first_step)
    begin, end = begin[whole] - first_step, end[whole] - first_step
    until = np.zeros((len(step_seconds) + 1, step_seconds.shape[1]))
    np.cumsum(step_seconds, axis=0, out=until[1:])
    return whole, np.asarray(until[end + 1] - until[begin])


def _spread(short: str, parts: Seconds) -> Metrics:
    """Mean, percentiles and mean parts of (n, PARTS) seconds; all None for n = 0."""
    names = [f"{short}_s", *(f"{short}_p{p}_s" for p in PERCENTILES)]
    names += [f"{short}_{part}_s" for part in PARTS]
    if not len(parts):
        return dict.fromkeys(names)
    each = parts.sum(axis=1)
    means = parts.mean(axis=0)
    values = [float(means.sum()), *np.percentile(each, PERCENTILES).tolist(), *means.tolist()]
    return dict(zip(names, values, strict=True))
