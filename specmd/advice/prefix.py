"""Prefixes of a trace: the first requests, whole ones where no two are in flight."""

from __future__ import annotations

import numpy as np

from specmd.trace import Trace, slice_steps


def steps_of(trace: Trace, accesses: int) -> int:
    """Return how many steps make about so many accesses, ending between requests if that is near.

    Near: not less than half of what was asked for.
    """
    per_token = trace.expert_ids[0].size
    tokens = max(1, accesses // per_token)
    if tokens >= trace.num_tokens:
        return trace.num_steps
    most = max(1, int(np.searchsorted(trace.step_starts, tokens, side="right")) - 1)
    between = trace.idle_steps[trace.idle_steps <= most]
    return int(between[-1]) if len(between) and 2 * between[-1] >= most else most


def prefix(trace: Trace, steps: int) -> Trace:
    """Return the first steps, the trace itself if these are all."""
    return trace if steps >= trace.num_steps else slice_steps(trace, 0, steps)
