"""What a trace can and cannot answer: times, policies, batches, capacities.

A trace without prompts has no time to first token, one without router weights cannot run a policy
that looks at them, and one that is short beside the cache tells no policies apart. All of it is
derived from what the trace holds and from what policies declare to need.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from specmd.policy.needs import NEEDS, Offer, offered
from specmd.policy.registry import Choice, entries
from specmd.runs.latency import unfinished_prompt, whole_prompts
from specmd.runs.resolve import with_sizes
from specmd.trace import DECODE, Locality, Trace


def answers(trace: Trace, found: Locality) -> dict[str, Any]:
    """Say what a trace can answer; `found` is its locality. JSON values, None for unknown.

    ``ttft`` is ``recorded``, ``estimated`` (from prompt lengths alone) or ``none``, for
    ``whole_prompts`` and ``cut_prompts`` requests; ``in_flight`` counts the tokens of decode steps,
    ``reset_steps`` the moments without a request in flight. From ``short_from_slots`` on, more than
    half of an LRU cache's misses are first uses; powers of two, for that is how `found` counts.
    """
    prompts = whole_prompts(trace, unfinished_prompt(trace))
    begun = np.zeros(trace.num_requests, np.bool_)
    begun[trace.request[trace.phase != DECODE]] = True
    known = trace.prompt_lengths is not None and bool((trace.prompt_lengths > 0).any())
    decode = trace.step[trace.phase == DECODE]
    in_flight = np.unique(decode, return_counts=True)[1]
    header, offer = with_sizes(trace.header, None), offered(trace, None)
    return {
        "ttft": "recorded" if prompts.any() else "estimated" if known else "none",
        "whole_prompts": int(prompts.sum()),
        "cut_prompts": int((begun & ~prompts).sum()),
        "tpot": bool(len(decode)),
        "weights": offer.weights,
        "logits": trace.logits is not None,
        "lookahead_depth": offer.lookahead,
        "skipped": _skipped(offer),
        "in_flight": [int(in_flight.min()), int(in_flight.max())] if len(decode) else None,
        "largest_batch": trace.num_requests,
        "reset_steps": len(trace.idle_steps),
        "expert_bytes": sorted(set(header.expert_bytes_by_layer or ()) or {header.expert_bytes})
        if header.expert_bytes
        else None,
        "ragged": trace.header.ragged,
        "short_from_slots": _short_from(found),
        "looping_requests": found.looping_requests,
    }


def _skipped(offer: Offer) -> dict[str, str]:
    """Return the policies that would be skipped, each with what it needs."""
    return {
        f"{entry.axis} {entry.name}": need.text
        for entry in entries()
        for need in map(NEEDS.__getitem__, entry.needs)
        if not need.met(offer, Choice.usual(entry).ahead)
    }


def _short_from(found: Locality) -> int:
    """Return the capacity from which first uses are most of LRU's misses; at most all keys used."""
    hits = np.concatenate(([0], np.cumsum(found.reuse_distance_counts)))
    short = 2 * found.reuse_first_uses > found.reuse_accesses - hits
    place = int(np.argmax(short))  # with all keys resident nothing but first uses is missed
    return min(1 << (place - 1), found.keys_used) if place else 0
