"""Every policy of the registry on every trace: one table from one command.

    python experiments/all_policies/make.py [--jobs N] [--part eviction|prefetch] [--texts]

What is compared is read from the registry when it is asked, so a policy that comes later is in the
table without a line changed here. Numbers go to `eviction.csv`, `prefetch.csv` and `skipped.csv`
beside this file, the text is made of them (`page.py`). What has a result is not run again.
"""

# ruff: noqa: T201 - says what it does
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT / "experiments"), str(HERE)]

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import pandas as pd  # noqa: E402
from page import best_policies, render_page  # noqa: E402
from reproduction.recordings import RECORDINGS, make_ready  # noqa: E402

from specmd.policy import registry  # noqa: E402
from specmd.trace import Trace, load, save, select_requests, slice_tokens  # noqa: E402
from specmd.trace.overlap import groups  # noqa: E402

OUT = ROOT / "results" / "experiments" / "all_policies"
TOKENS = 20_000  # of a trace, and of what is trained on
CAPACITIES = ["1%", "5%", "10%", "20%", "40%"]
# Tokens of those that are timed; those of the project have lookahead scores.
TIMED = {
    "olmoe": 300, "gptoss_20b": 300, "olmoe_warp": 299, "qwen3_30b": 200, "gptoss_120b": 100,
    "tiny-prose-b1": 400, "tiny-mixed-b8": 400, "tiny-math-b1-full": 200,
}  # fmt: skip
TIMED_CAPACITY = ["10%"]
PROFILES = ["rtx4090", "t4"]
COUNTED = (
    "hit_rate", "late_rate", "collision_rate", "bytes_per_token", "no_cache_bytes_per_token",
    "ttft_s", "tpot_s", "total_s", "over_roofline",
)  # fmt: skip


def main() -> int:
    """Run what was asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--part", choices=("eviction", "prefetch"), help="only this part")
    parser.add_argument("--texts", action="store_true", help="run nothing: text from the numbers")
    parser.add_argument("--trace", action="append", help="only these traces, as a trial")
    args = parser.parse_args()
    if not args.texts:
        OUT.mkdir(parents=True, exist_ok=True)
        if args.part != "prefetch":
            compare_eviction(args.jobs, args.trace)
        if args.part != "eviction":
            compare_prefetch(args.jobs, args.trace)
    text = HERE / "README.md"
    text.write_text(render_page(text.read_text("utf-8"), HERE), "utf-8")
    return 0


def traces(tokens: int, only: list[str] | None) -> dict[str, tuple[Path, Path | None]]:
    """Make ready every trace that is here, and what its policies may learn from.

    Of a trace of several requests every second one is run, the others are learned from; those that
    share text or routing stay together. A trace of one is run whole: nothing to learn from.
    """
    found: dict[str, tuple[Path, Path | None]] = {}
    first = {source.file: name for name, source in reversed(RECORDINGS.items()) if source.others}
    names = [name for name in RECORDINGS if name in first.values()]  # not what is made of one
    sources = {name: path for name in names if (path := make_ready(name)) is not None}
    sources |= {path.stem: path for path in sorted((ROOT / "traces").glob("*.npz"))}
    for name, source in sources.items():
        if only and name not in only:
            continue
        trace = load(source)
        odd = groups(trace) % 2
        mine = _kept(f"{name}-{tokens}", trace, odd == 0, tokens)
        rest = _kept(f"{name}-{tokens}-rest", trace, odd == 1, tokens) if odd.any() else None
        found[name] = mine, rest
    return found


def _kept(name: str, trace: Trace, requests: npt.NDArray[np.bool_], tokens: int) -> Path:
    path = OUT / "traces" / f"{name}.npz"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = select_requests(trace, np.flatnonzero(requests).tolist())
        save(slice_tokens(part, 0, min(tokens, part.num_tokens)), path)
    return path


def spelled(axis: str, training: Path | None, *, bounds: bool) -> list[str]:
    """Spell every lossless policy of an axis, with the file of its weights where it needs one."""
    found = []
    for entry in registry.entries(axis):
        if entry.lossy or ("future" in entry.needs and not bounds):
            continue
        text = entry.name
        if "model" in entry.needs and training is not None:
            weights = train(entry.name, training)
            text += f":model={weights}" if weights else ""
        found.append(text)
    return found


def train(policy: str, training: Path) -> Path | None:
    """Let a policy learn on the requests that are not run; None where that fails."""
    path = OUT / "weights" / f"{policy}-{training.stem}.safetensors"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        done = _specmd("train", policy, str(training), "-o", str(path))
        if done.returncode:
            print(f"   {policy} learned nothing of {training.stem}: {done.stderr.strip()[-200:]}")
            return None
    return path


def compare_eviction(jobs: int, only: list[str] | None) -> None:
    """Run every lossless eviction policy in both scopes, demand only."""
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    for name, (trace, training) in traces(TOKENS, only).items():
        started = time.monotonic()
        grid = {
            "evict": spelled("evict", training, bounds=False),
            "capacity": CAPACITIES,
            "scope": ["global", "layer"],
        }
        for run in sweep(f"eviction-{name}", trace, training, grid, jobs):
            row = _named(run, name, "scope")
            if run["status"] != "ok":
                reason = _shortened(run["reason"])
                skipped.append({"trace": name, "policy": row["evict"], "reason": reason})
                continue
            bounds = run["bounds"]
            row |= {"hit_rate": run["metrics"]["hit_rate"]}
            row |= {"collision_rate": run["metrics"]["collision_rate"]}
            row |= {kind: bounds[kind]["hit_rate"] for kind in ("belady", "belady_bypass")}
            row |= {"refuses": run["config"]["admission"] != "forced"}
            row |= {"regret": run["metrics"]["misses"] / bounds["belady"]["misses"] - 1}
            least = bounds["belady_bypass"]["misses"]
            rows.append(row | {"regret_bypass": run["metrics"]["misses"] / least - 1})
        print(f"eviction {name}: {time.monotonic() - started:.0f} s, {len(rows)} rows", flush=True)
        _write(HERE / "eviction.csv", rows)
        _write(HERE / "skipped.csv", _once(skipped))


def compare_prefetch(jobs: int, only: list[str] | None) -> None:
    """Run the ten best and Least-Stale with each prefetcher, guard on and off, on two devices."""
    chosen = best_policies(pd.read_csv(HERE / "eviction.csv"), 10)
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    for name in only or TIMED:
        trace, training = traces(TIMED.get(name, TOKENS), [name])[name]
        started = time.monotonic()
        known = {text.partition(":")[0]: text for text in spelled("evict", training, bounds=False)}
        for scope in ("global", "layer"):
            evict = [known[policy] for policy, where in chosen if where == scope]
            if not evict:
                continue
            grid = {
                "evict": evict,
                "scope": scope,
                "capacity": TIMED_CAPACITY,
                "prefetch": spelled("prefetch", training, bounds=True),
                "schedule": ["fifo", "guard"],
                "profile": PROFILES,
            }
            for run in sweep(f"prefetch-{name}-{scope}", trace, training, grid, jobs):
                row = _named(run, name, "scope", "prefetch", "schedule", "profile")
                row["profile"] = Path(row["profile"]).stem
                if run["status"] == "ok":
                    rows.append(row | {metric: run["metrics"][metric] for metric in COUNTED})
                else:
                    reason = _shortened(run["reason"])
                    skipped.append({"trace": name, "policy": row["prefetch"], "reason": reason})
        print(f"prefetch {name}: {time.monotonic() - started:.0f} s, {len(rows)} rows", flush=True)
        _write(HERE / "prefetch.csv", rows)
        _write(HERE / "prefetch_skipped.csv", _once(skipped))


def _named(run: dict[str, Any], trace: str, *options: str) -> dict[str, Any]:
    """Say what a run is; of a policy's file of weights not where it lies."""
    config = run["config"]
    row = {"trace": trace, "evict": config["evict"], "capacity": config["capacity"]}
    row |= {option: config[option] for option in options}
    return {
        key: text.partition(":model=")[0] if isinstance(text, str) else text
        for key, text in row.items()
    }


def _once(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [dict(row) for row in dict.fromkeys(tuple(row.items()) for row in rows)]


def _shortened(reason: str) -> str:
    return reason.replace(str(ROOT), ".").splitlines()[0][:160]


def sweep(
    name: str, trace: Path, training: Path | None, grid: dict[str, Any], jobs: int
) -> list[dict[str, Any]]:
    """Run `specmd sweep` on one trace and return its runs, skipped ones as well."""
    config = OUT / f"{name}.toml"
    lines = [f"traces = [{json.dumps(str(trace))}]", f"out = {json.dumps(str(OUT / name))}"]
    lines += [f"training = {json.dumps(str(training))}"] if training else []
    lines += ["[grid]", *(f"{option} = {json.dumps(values)}" for option, values in grid.items())]
    config.write_text("\n".join(lines) + "\n", "utf-8")
    done = _specmd("sweep", "--config", str(config), "--jobs", str(jobs), "--format", "json")
    if not done.stdout:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def _specmd(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "specmd", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    frame = pd.DataFrame(rows)
    for column in frame.select_dtypes("float"):
        frame[column] = frame[column].map(lambda value: float(f"{value:.5g}"))
    frame.to_csv(path, index=False, lineterminator="\n")


if __name__ == "__main__":
    sys.exit(main())
