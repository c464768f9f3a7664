"""Traces put together: end to end, prompts in chunks, and batches made of batch-1 recordings.

Routing of a token depends on the tokens before it in its request, and on nothing else that is in
its forward pass. So what a server with other batches and other chunks would have recorded of the
same requests can be made of a recording: every token keeps its experts, only the steps change.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specmd.errors import SpecmdError
from specmd.trace.header import DECODE, PREFILL, Kind
from specmd.trace.slicing import PER_TOKEN, joined, renumbered, slice_tokens
from specmd.trace.trace import OPTIONAL, Trace

_SAME = ("model", "num_layers", "num_experts", "top_k", "expert_bytes", "expert_bytes_by_layer")


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
    for name in PER_TOKEN:
        parts = [getattr(trace, name) for trace in traces]
        if any(part is None for part in parts):
            continue
        if name.startswith(("lookahead", "draft")) and len({part.shape[2] for part in parts}) > 1:
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
            "source": joined(trace.header.source for trace in traces),
            "license": joined(trace.header.license for trace in traces),
            "notes": joined(trace.header.notes for trace in traces),
        }
    )
    return Trace(header=header, **arrays)


def compose(
    trace: Trace,
    *,
    tokens: int | None = None,
    prefill_chunk: int | None = None,
    batch: int | None = None,
    mixed: bool = False,
) -> Trace:
    """Return the trace as a run asks for it: cut to `tokens`, prompts in chunks, then batched.

    The cut comes first, so that a grid over chunks and batches is of the same tokens. None and
    False leave as recorded; a trace that nothing changes is returned as it is.

    Raises:
        SpecmdError: more requests in flight than there are, or `mixed` without `batch`.

    """
    if tokens is not None and tokens < trace.num_tokens:
        trace = slice_tokens(trace, 0, tokens)
    if prefill_chunk is not None:
        trace = chunk_prefills(trace, prefill_chunk)
    if batch is None:
        if mixed:
            raise SpecmdError("mixed is about requests in flight together: give batch, too")
        return trace
    if batch > trace.num_requests:
        what = "1 request" if trace.num_requests == 1 else f"{trace.num_requests} requests"
        raise SpecmdError(
            f"batch {batch}: the trace has {what}, so that fewer would be in flight; give a batch "
            "of at most that, or a trace of more requests"
        )
    return interleave(trace, batch, mixed=mixed)


def chunk_prefills(trace: Trace, tokens: int) -> Trace:
    """Split every prefill step into steps of at most `tokens` tokens, in the order of its tokens.

    All tokens of a step that has a prompt's token count, of whatever request and phase. A layer
    that only the last token of a prompt reaches is then empty in all chunks but the last, as in an
    engine that asks for no logits before. Shares memory with its source; a trace without longer
    prefill steps is returned as it is.

    Raises:
        SpecmdError: tokens is smaller than 1.

    """
    if tokens < 1:
        raise SpecmdError(f"chunks of {tokens} tokens: at least one token must be in a chunk")
    wide = np.zeros(trace.num_steps, dtype=np.bool_)
    wide[trace.step[trace.phase == PREFILL]] = True
    place = np.arange(trace.num_tokens) - trace.step_starts[trace.step]
    begins = (place == 0) | (wide[trace.step] & (place % tokens == 0))
    if int(begins.sum()) == trace.num_steps:
        return trace
    steps = np.cumsum(begins) - 1
    return renumbered(trace, slice(None), steps, f"prefill in chunks of {tokens} tokens")


def interleave(trace: Trace, batch: int, *, mixed: bool = False) -> Trace:
    """Run recorded requests `batch` at a time, by continuous batching.

    Requests enter in their order. A decode step takes the next token of every request in flight;
    when a request ends, the next one takes its lane in the following step. Each prefill step, or
    chunk of one, stays a step of its own, run when its request enters, while the others wait. If
    `mixed`, as engines with chunked prefill do, it rides along with the decode step of the others
    instead; one request's prompt at a time, so that a step has one chunk (but for prompts that
    follow upon decoded tokens of the same request, which never wait).

    Args:
        trace: batch-1 recordings (or any trace: it is taken apart into requests first).
        batch: requests in flight, at least 1. With 1, a batch-1 recording comes back as it was.
        mixed: whether a prefill chunk shares its step with the decodes of the others.

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

    # Units that tick have a step of the clock for themselves in their lane. Others, prefills that
    # are not mixed, run just before the step that the next tick of their request joins.
    ticks = decodes | mixed
    owned = np.bincount(owner[ticks], minlength=trace.num_requests)
    before = np.cumsum(ticks) - ticks - (np.cumsum(owned) - owned)[owner]
    prompts = np.zeros(trace.num_requests, dtype=np.int64)
    if mixed:
        prompts[:] = owned
        np.minimum.at(prompts, owner[decodes], before[decodes])
    enters, lane = _lanes(owned, prompts, batch)
    clock = enters[owner] + before
    order = np.lexsort((np.arange(len(starts)), np.where(decodes, lane[owner], 0), decodes, clock))
    starts, lengths = starts[order], lengths[order]
    ticks, clock = ticks[order], clock[order]
    new_step = np.ones(len(order), dtype=np.bool_)
    new_step[1:] = ~(ticks[1:] & ticks[:-1] & (clock[1:] == clock[:-1]))
    offset = np.arange(trace.num_tokens) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows = by_request[np.repeat(starts, lengths) + offset]
    steps = np.repeat(np.cumsum(new_step) - 1, lengths)
    whole = np.empty(trace.num_tokens, dtype=np.int64)
    whole[rows] = steps
    how = ", prefill mixed with decode" if mixed else ""
    return renumbered(trace, rows, whole, f"interleaved, {batch} requests in flight{how}")


def _lanes(
    units: NDArray[np.int64], prompts: NDArray[np.int64], batch: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the clock at which each request enters, and its lane: the first lane to be free.

    `units` are ticks of each request, `prompts` those at its beginning that only one request at a
    time may have.
    """
    free = [(0, lane) for lane in range(batch)]
    enters = np.zeros(len(units), dtype=np.int64)
    lanes = np.zeros(len(units), dtype=np.int64)
    prompt_done = 0
    for request, (count, prompt) in enumerate(zip(units.tolist(), prompts.tolist(), strict=True)):
        clock, lane = free[0]
        if prompt:
            clock = max(clock, prompt_done)
            prompt_done = clock + prompt
        enters[request], lanes[request] = clock, lane
        heapq.heapreplace(free, (clock + count, lane))
    return enters, lanes
