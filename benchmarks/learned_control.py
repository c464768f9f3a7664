"""Whether what was learned helps: learned policies beside themselves trained on shuffled labels.

    python benchmarks/learned_control.py TRACE [--tokens 8000] [--learn 8000] [--seeds 3]

Divides a recording by its requests, trains every kind of weights on one part, with true and with
shuffled labels and several seeds, and simulates the other part: eviction alone at 5, 10 and 20 % of
the experts, prefetchers beside LRU at 20 % with the guard on. Prints mean and spread (largest less
smallest) over the seeds, and what needs no training beside them. `recall` is the share of demanded
keys that were proposed for their event. Simulated, no clock.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from specmd import load, simulate
from specmd.core.event import World
from specmd.core.planner import Planner
from specmd.core.prefetch import Outlook
from specmd.policy.registry import Entry, choose, entries
from specmd.simulation.events import EventStream
from specmd.trace import Trace, slice_tokens
from specmd.trace.overlap import split
from specmd.training.training import train

SHARES = ("5%", "10%", "20%")
BESIDE = {"evict": ("lru", "lfru"), "prefetch": ("prev_token",)}


def main() -> None:
    """Train, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace")
    parser.add_argument("--learn", type=int, default=8000, help="tokens that are learned from")
    parser.add_argument("--tokens", type=int, default=8000, help="tokens that are judged on")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    whole = load(given.trace)
    one, other = split(whole, 0.5)
    learned, judged = slice_tokens(one, 0, given.learn), slice_tokens(other, 0, given.tokens)
    learners = [entry for entry in entries() if "model" in entry.needs]
    print(f"{'policy':<16} {'labels':<9} {'':<14} {'mean':>7} {'spread':>7}")
    for entry in learners:
        for labels in ("true", "shuffled"):
            rows = []
            began = time.perf_counter()
            for seed in range(given.seeds):
                rows.append(trained(entry, learned, judged, seed, labels == "shuffled"))
            took = (time.perf_counter() - began) / given.seeds
            report(entry.name, labels, rows)
            print(f"specmd: {took:.0f} s a seed", file=sys.stderr)
    for axis, names in BESIDE.items():
        for name in names:
            report(name, "", [judge(axis, name, judged)])


def trained(
    entry: Entry, learned: Trace, judged: Trace, seed: int, shuffled: bool
) -> dict[str, float]:
    """Train one policy and judge it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        header = train(entry.name, learned, file, seed=seed, shuffled=shuffled)
        found = judge(entry.axis, f"{entry.name}:model={file}", judged)
    return {"held-out loss": header.held_out_loss} | found


def judge(axis: str, spelled: str, trace: Trace) -> dict[str, float]:
    """Hit rates in per cent; of a prefetcher its recall, too."""
    if axis == "evict":
        return {
            f"hits at {share}": 100
            * simulate(trace, spelled, share, bounds=False).metrics["hit_rate"]
            for share in SHARES
        }
    run = simulate(trace, "lru", "20%", prefetch=spelled, schedule="guard", bounds=False)
    return {"recall": 100 * recall(spelled, trace), "hits at 20%": 100 * run.metrics["hit_rate"]}


def recall(spelled: str, trace: Trace) -> float:
    """Return the share of demanded keys that were proposed for their event."""
    choice = choose("prefetch", spelled)
    stream = EventStream(trace, weights=True)
    planner = Planner(World.of(trace.header, [1]), choice)
    wanted = found = 0
    none = np.zeros((0,) * 4, np.float32)
    proposed: set[tuple[int, int]] = set()
    for first, last in stream.stretches(0, stream.num_steps):
        chunk = stream.chunk(first, last)
        outlook = Outlook(0, chunk.start[:0], chunk.keys, stream.step_start, 0, none)
        made = planner.plan(chunk, outlook)
        proposed |= set(zip(made.prefetch_due.tolist(), made.prefetch_keys.tolist(), strict=True))
        clock = int(chunk.clock[0]) + np.repeat(np.arange(len(chunk.layer)), np.diff(chunk.start))
        asked = set(zip(clock.tolist(), chunk.keys[: len(clock)].tolist(), strict=True))
        wanted += len(asked)
        found += len(asked & proposed)
        proposed = {each for each in proposed if each[0] > clock[-1]}
    return found / wanted


def report(name: str, labels: str, rows: list[dict[str, float]]) -> None:
    """Print mean and spread of each number, and all of them as a line of JSON on stderr."""
    for what in rows[0]:
        values = np.array([row[what] for row in rows])
        spread = f"{np.ptp(values):7.2f}" if len(values) > 1 else ""
        print(f"{name:<16} {labels:<9} {what:<14} {values.mean():7.2f} {spread}", flush=True)
    print(json.dumps({"policy": name, "labels": labels, "rows": rows}), file=sys.stderr)


if __name__ == "__main__":
    main()
