"""Estimates of a prefill that was not recorded: its time to first token from the prompt's length.

A prompt of n tokens reaches `E (1 - (1 - k / E)**n)` distinct experts a layer if the router chose
evenly; a cold cache fetches each once, while those that are there compute. Where they come from a
disk, each is read while the one before it crosses the link.
"""

from __future__ import annotations

import numpy as np

from specmd.simulation.costs import (
    CostCoefficients,
    expert_s,
    in_prefill,
    layer_s,
    read_s,
    step_s,
    transfer_s,
)
from specmd.trace import PREFILL, Trace, TraceHeader


def estimate_ttft(
    header: TraceHeader, costs: CostCoefficients, prompt_tokens: int, *, disk: bool = False
) -> float:
    """Estimate seconds of a cold prefill of `prompt_tokens`; see the module for what it assumes."""
    if prompt_tokens <= 0:
        return 0.0
    assert header.layer_bytes is not None
    costs = in_prefill(costs)
    experts, top_k = header.num_experts, header.top_k
    distinct = experts * (1 - (1 - top_k / experts) ** prompt_tokens)
    dense = layer_s(costs, prompt_tokens, (prompt_tokens + 1) / 2, prompt_tokens)
    total_s = step_s(costs, 1)
    for size in header.layer_bytes:
        compute = distinct * expert_s(costs, prompt_tokens * top_k / distinct, size)
        hops_s = (transfer_s(costs, size), read_s(costs, size) if disk else 0.0)
        stream = distinct * max(hops_s)
        # The router of a layer must have spoken before its first expert can be asked for.
        total_s += dense + max(compute, stream)
    return total_s


def mean_ttft_estimate(
    trace: Trace, costs: CostCoefficients, *, disk: bool = False
) -> float | None:
    """Mean estimate over the requests without recorded prefill whose prompt length is known."""
    if trace.prompt_lengths is None:
        return None
    recorded = np.zeros(trace.num_requests, np.bool_)
    recorded[trace.request[trace.phase == PREFILL]] = True
    lengths = trace.prompt_lengths[~recorded]
    lengths, counts = np.unique(lengths[lengths > 0], return_counts=True)
    if not len(lengths):
        return None
    each = [estimate_ttft(trace.header, costs, n, disk=disk) for n in lengths.tolist()]
    return float(np.average(each, weights=counts))
