"""Quality and speed of every lossy policy on the shipped small model: measured, and as foretold.

    python experiments/quality/table.py [--texts N] [--only NAME ...]

Every policy of the registry that is lossy and needs no more than a live cache can tell runs with
its defaults behind the same cache: its answers beside those of lossless policies (`specmd run
--quality` does the same for one), what a decode step waits for a paced link, the bytes moved
a token. Beside that, the simulation of the lossless recording says what it thinks is kept
(`kept_mass`), and the simulation of the run's own log what a token takes on a GPU. The texts were
held out of the model's training. Rows go to table.csv as they are made; `report.py` makes the text
of them. The core is interpreted: decisions are the same, and no kernel has to be compiled.
"""

# ruff: noqa: T201 - what was found is what this script prints
from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from specmd import offload, simulate
from specmd.errors import SpecmdError
from specmd.measurement.quality import answers, quality
from specmd.models.generation import Generation
from specmd.models.prompts import read_prompts
from specmd.models.tiny import load_tiny
from specmd.policy.registry import AXES, entries
from specmd.recording import Recorder
from specmd.runs.metrics import PART_COLUMN
from specmd.trace import DECODE, Trace

FILE = Path(__file__).with_name("table.csv")
CACHE: dict[str, Any] = {"evict": "lfu", "capacity": "25%"}
PACE = (200e6, 20e-6)  # bytes per second, seconds
FIELDS = ("axis", "policy", "kept_simulated", "kept", "lowbit", "substituted", "dropped")
MEASURED = ("quality_kl", "quality_ppl_ratio", "quality_top1", "greedy_match")
COSTS = ("true_hit_rate", "t4_tpot_ms", "stall_ms", "kb_per_token", "digest", "same_digest")


def main() -> None:
    """Measure all, or those named, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=1, help="texts of each domain, at most 6")
    parser.add_argument("--tokens", type=int, default=16, help="that each prompt is continued by")
    parser.add_argument("--only", nargs="*", help="policies to measure again; all without")
    args = parser.parse_args()
    prompts = read_prompts()
    kept: dict[str, int] = {}
    texts = [p for p in prompts if kept.setdefault(p.domain, 0) < args.texts and _count(kept, p)]
    training = [p for p in prompts if p not in texts][: len(texts)] or texts
    model, tokenizer = load_tiny()
    played = Generation(tuple(texts), max_new_tokens=args.tokens, temperature=0)
    known = _recorded(model, tokenizer, Generation(tuple(training), max_new_tokens=args.tokens))
    recorded = _recorded(model, tokenizer, played)
    with offload(model, **CACHE, link="cpu", interpreted=True):
        own = answers(model, tokenizer, played)
        print(f"{len(own.targets)} positions, {len(texts)} texts")
    rows = _rows_so_far() if args.only else {}
    for axis, name in _policies():
        if args.only and name not in args.only:
            continue
        asked = CACHE | ({axis: name} if axis else {})
        try:
            row = _row(model, tokenizer, played, asked, own, recorded, known)
        except SpecmdError as error:
            print(f"{axis} {name}: {error}")
            continue
        rows[axis, name] = row | {"axis": axis or "-", "policy": name}
        _write(rows)
        print(row)


def _count(kept: dict[str, int], prompt: Any) -> bool:
    kept[prompt.domain] += 1
    return True


def _rows_so_far() -> dict[tuple[str, str], dict[str, Any]]:
    with FILE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {(row["axis"].strip("-"), row["policy"]): row for row in rows}


def _write(rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    with FILE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*FIELDS, *MEASURED, *COSTS], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[each] for each in _policies() if each in rows)


def _policies() -> Iterator[tuple[str, str]]:
    """Yield the lossless run, the host computing misses, then all that is lossy."""
    yield "", "lossless"
    for axis in AXES:
        for entry in entries(axis):
            wanted = entry.lossy or entry.name == "host"
            if entry.origin == "built-in" and wanted:
                yield axis, entry.name


def _recorded(model: Any, tokenizer: Any, generation: Generation) -> Trace:
    with Recorder(model, logits="full") as recorder:
        for _ in generation.batches(model, tokenizer):
            pass
    return recorder.trace


def _row(
    model: Any,
    tokenizer: Any,
    played: Generation,
    asked: dict[str, Any],
    own: Any,
    recorded: Trace,
    training: Trace,
) -> dict[str, Any]:
    options = asked | {"training": training, "link": "cpu", "interpreted": True}
    with offload(model, **options, deterministic=True, log_routing=True) as cache:
        for _ in played.batches(model, tokenizer):
            pass
        log, digest, masses = cache.trace, cache.decision_digest, cache.masses
        cache.restart()
        found = quality(own, answers(model, tokenizer, played))
    with offload(model, **options, throttle=PACE, log_routing=True) as cache:
        for _ in played.batches(model, tokenizer):
            pass
        seconds, timed = cache.step_seconds, cache.trace
        moved = cache.report().moved_bytes
    decodes = timed.phase[timed.step_starts[:-1]] == DECODE
    stalls = [PART_COLUMN[part] for part in ("demand_stall", "late_prefetch_stall", "cpu_expert")]
    asked |= {"training": training, "bounds": False, "interpreted": True}
    foretold, again = simulate(recorded, **asked), simulate(log, **asked, profile="t4")
    shares = [1.0, 0.0, 0.0, 0.0]
    if masses is not None:
        whole, *parts = masses.sum(axis=(0, 1)).tolist()
        shares = [part / whole for part in parts]
    row: dict[str, Any] = dict(zip(FIELDS[3:], (f"{each:.4f}" for each in shares), strict=True))
    row["kept_simulated"] = f"{foretold.metrics['kept_mass']:.4f}"
    row |= {name: f"{found[name]:.5f}" for name in MEASURED}
    row["true_hit_rate"] = f"{again.metrics['true_hit_rate']:.4f}"
    row["t4_tpot_ms"] = f"{1e3 * again.metrics['tpot_s']:.3f}"
    row["stall_ms"] = f"{1e3 * float(np.median(seconds[decodes][:, stalls].sum(axis=1))):.2f}"
    row["kb_per_token"] = f"{moved / timed.num_tokens / 1e3:.1f}"
    row |= {"digest": digest[:12], "same_digest": int(digest == again.decision_digest)}
    return row


if __name__ == "__main__":
    main()
