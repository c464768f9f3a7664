"""What prompts do to the decode steps behind them: hit rates with and without the prompts.

    python experiments/prompts/after_prompts.py TRACE [--capacity 25%] [--first 8] [--chunk N]
    python experiments/prompts/after_prompts.py TRACE --requests 60 --prompt 64

Requests run one after the other, without prefetch or reset. Where no prompts were recorded,
`--prompt` makes the first P decoded tokens of each request one: a token is routed by what is before
it, so it would have been routed so in a prompt of the same text. A replay counts by phase, and no
eviction policy looks at it; so each figure is a replay of the same decisions in which only the
tokens asked for are called decode.
"""

# ruff: noqa: T201 - the table is what this script prints
from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

from specmd.core.state import ACCESSES, PREFETCH_HITS, REUSE_HITS
from specmd.runs.resolve import grid
from specmd.simulation.replay import replay
from specmd.trace import DECODE, PREFILL, Trace, compose, load, select_requests
from specmd.trace.slicing import renumbered

POLICIES = ("lru", "lfu", "arc", "s3fifo", "least_stale", "belady")


def decoded_before(trace: Trace) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return (T,) how many tokens of its request were decoded before each token; -1 in prompts."""
    found = np.full(trace.num_tokens, -1, np.int64)
    for request in range(trace.num_requests):
        rows = np.flatnonzero((trace.request == request) & (trace.phase == DECODE))
        found[rows] = np.arange(len(rows))
    return found


def with_prompts(trace: Trace, length: int) -> Trace:
    """Return a batch-1 trace with the first tokens of each request as its prompt, one step."""
    early = decoded_before(trace)
    early = (early >= 0) & (early < length)
    steps = np.cumsum(np.diff(trace.request, prepend=-1).astype(bool) | ~early) - 1
    phase = np.where(early, PREFILL, DECODE).astype(np.uint8)
    return renumbered(replace(trace, phase=phase), slice(None), steps, f"{length} as prompts")


def hit_rates(
    trace: Trace, asked: np.ndarray[Any, np.dtype[np.bool_]], **options: str
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Replay, and return (1 + L,) hit rates in percent of the tokens asked for: all, by layer."""
    (config,) = grid(trace, **options)
    phase = np.where(asked, DECODE, PREFILL).astype(np.uint8)
    counts = replay(replace(trace, phase=phase), config).counters[DECODE]
    counts = np.concatenate((counts.sum(axis=0, keepdims=True), counts))
    hits = counts[:, REUSE_HITS] + counts[:, PREFETCH_HITS]
    return np.asarray(100 * hits / np.maximum(counts[:, ACCESSES], 1))


def main() -> None:
    """Print a row for each policy and admission."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace")
    parser.add_argument("--capacity", default="25%")
    parser.add_argument("--first", type=int, default=8)
    parser.add_argument("--chunk", type=int)
    parser.add_argument("--requests", type=int)
    parser.add_argument("--prompt", type=int)
    args = parser.parse_args()
    whole = load(args.trace)
    if args.requests:
        whole = select_requests(whole, slice(args.requests))
    if args.prompt:
        whole = with_prompts(whole, args.prompt)
    whole = compose(whole, batch=1, prefill_chunk=args.chunk)
    bare = renumbered(whole, np.flatnonzero(whole.phase == DECODE), whole.step, "no prompts")
    print(f"hit rate of decode steps (%), {whole.num_requests} requests, {args.capacity}")
    print(f"{'':22}{f'first {args.first}':>9}{'others':>9}{'layers':>12}   without prompts")
    for policy in POLICIES:
        for admission in ("forced", "bypass"):
            evict = (
                f"{policy}:bypass=true" if (policy, admission) == ("belady", "bypass") else policy
            )
            asked = {"evict": evict, "capacity": args.capacity, "admission": admission}
            row = f"{policy:14}{admission:8}"
            for trace in (whole, bare):
                place = decoded_before(trace)
                first = hit_rates(trace, (place >= 0) & (place < args.first), **asked)
                others = hit_rates(trace, place >= args.first, **asked)
                layers = f"{others[1:].min():.0f}-{others[1:].max():.0f}"
                row += f"{first[0]:9.1f}{others[0]:9.1f}{layers:>12}"
            print(row)


if __name__ == "__main__":
    main()
