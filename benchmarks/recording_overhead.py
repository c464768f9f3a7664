"""What recording costs: the same generation with and without hooks, in one process.

    python benchmarks/recording_overhead.py

The two alternate, so that load from elsewhere and drift fall on both alike, and the figure is the
median of the ratios of neighbouring runs; processor time, which other programs disturb less, stands
beside wall time. The tiny model is the hardest case there is: a decode
step of it takes a few milliseconds, a step of a real model ten times that, and the hooks cost the
same. The budget is 10 %. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from specmd.models.tiny import load_tiny
from specmd.recording import Recorder, read_prompts

BUDGET = 1.10


def generate(model: Any, inputs: Any, new_tokens: int) -> None:
    """One greedy generation that does not end early."""
    length = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
    model.generate(**inputs, **length, do_sample=False, pad_token_id=1)


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Wall and processor seconds of `work`."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=16, help="pairs of runs for each setting")
    parser.add_argument("--new-tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, tokenizer = load_tiny()
    texts = [prompt.text for prompt in read_prompts()]
    rows = []
    for batch, lookahead, logits, to_file in (
        (1, 0, "top", False),
        (1, 1, "top", False),
        (1, 2, "full", True),
        (8, 1, "top", False),
        (8, 2, "full", True),
    ):
        inputs = tokenizer(
            texts[:batch], return_tensors="pt", padding=True, return_token_type_ids=False
        )

        def plain(inputs: Any = inputs) -> None:
            generate(model, inputs, args.new_tokens)

        def recorded(
            inputs: Any = inputs, depth: int = lookahead, logits: Any = logits, file: bool = to_file
        ) -> None:  # opening, flushing and saving included
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "trace.npz" if file else None
                with Recorder(model, lookahead=depth, logits=logits, out=out):
                    generate(model, inputs, args.new_tokens)

        plain()
        recorded()
        pairs = []
        for pair in range(args.pairs):
            if pair % 2:
                second, first = timed(recorded), timed(plain)
            else:
                first, second = timed(plain), timed(recorded)
            pairs.append((first, second))
        rows.append(
            {
                "batch": batch,
                "lookahead": lookahead,
                "logits": logits,
                "to_file": to_file,
                "plain_s": round(statistics.median(first[0] for first, _ in pairs), 4),
                "ratio": round(statistics.median(b[0] / a[0] for a, b in pairs), 4),
                "cpu_ratio": round(statistics.median(b[1] / a[1] for a, b in pairs), 4),
            }
        )
    print("batch lookahead logits  file plain (s)  ratio cpu ratio")
    for row in rows:
        print(
            f"{row['batch']:>5} {row['lookahead']:>9} {row['logits']:>6} {row['to_file']!s:>5} "
            f"{row['plain_s']:>9.3f} {row['ratio']:>6.3f} {row['cpu_ratio']:>9.3f}"
        )
    worst = max(row["ratio"] for row in rows)
    print(
        json.dumps(
            {"benchmark": "recording_overhead", "budget": BUDGET, "worst": worst, "rows": rows}
        )
    )
    raise SystemExit(0 if worst <= BUDGET else 1)


if __name__ == "__main__":
    main()
