"""How fast every built-in eviction policy decides: the slowest by name, and those below a floor.

Event-atomic, compiled, a quarter of the keys resident, no clock, no bounds; all in one process, the
best of three rounds each, in processor seconds of one thread. Policies that are fitted beforehand
are fitted on one half of the trace's requests, and all are timed on the other; weights that are
learned are those of a made-up trace: what they are hardly matters for the time.

    python benchmarks/policy_rates.py [TRACE.npz] [--floor 2] [--capacity 25] [--tokens N] [--json]

The exit code is 1 where a policy is slower than the floor, in M accesses a second.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from specmd.conformance.cases import equipped
from specmd.conformance.speed import bench_trace, rate
from specmd.policy.needs import offered, unmet
from specmd.policy.registry import BUILT_IN, Choice, entries
from specmd.trace import Trace, load, slice_tokens
from specmd.trace.overlap import split


def rates(trace: Trace, percent: float, tokens: int | None) -> dict[str, float]:
    """Return accesses a second by policy, for all that the trace meets the needs of."""
    learned, judged = split(trace, 0.5)
    if tokens is not None:
        judged = slice_tokens(judged, 0, min(tokens, judged.num_tokens))
    slots = max(1, round(percent / 100 * trace.header.num_layers * trace.header.num_experts))
    found = {}
    for entry in entries("evict"):
        if entry.origin != BUILT_IN:
            continue
        choice = equipped(Choice.usual(entry), judged)
        if reason := unmet(choice, offered(judged, learned)):
            print(f"{entry.name}: left out: {reason}", file=sys.stderr)
            continue
        training = learned if "training" in choice.needs else None
        found[entry.name] = rate(judged, {"evict": choice.spelled}, slots=slots, training=training)
        print(f"{entry.name}: {found[entry.name] / 1e6:.2f} M accesses/s", file=sys.stderr)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", nargs="?", type=Path)
    parser.add_argument("--floor", type=float, default=2.0, help="M accesses/s")
    parser.add_argument("--capacity", type=float, default=25.0, help="per cent of all keys")
    parser.add_argument("--tokens", type=int, help="time so many at most")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    trace = bench_trace() if asked.trace is None else load(asked.trace)
    found = rates(trace, asked.capacity, asked.tokens)
    slowest = min(found, key=found.__getitem__)
    below = [name for name, value in found.items() if value < asked.floor * 1e6]
    if asked.json:
        print(json.dumps({"per_s": found, "slowest": slowest, "below": below}, indent=1))
        return int(bool(below))
    for name, value in sorted(found.items(), key=lambda each: each[1]):
        print(f"{name:24} {value / 1e6:8.2f} M accesses/s  {value / found['lru']:6.2f} x LRU")
    print(f"slowest: {slowest}, {found[slowest] / 1e6:.2f} M accesses/s")
    named = ", ".join(below) or "none"
    print(f"below {asked.floor:g} M accesses/s: {named}")
    return int(bool(below))


if __name__ == "__main__":
    sys.exit(main())
