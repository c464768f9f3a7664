"""A sweep of two thousand runs on one trace: how fast, how much memory, and always the same.

    python benchmarks/sweep_scale.py TRACE [--tokens 20000] [--work DIR] [--dask]

Five ways to make the same runs: by one process, by two, on a dask cluster of this machine, in two
shards that are merged, and killed (SIGKILL) half-way and started again. Wall time counts everything
a user waits for: the interpreter, planning, and the table at the end. What is compared is what was
decided and every number: all of a run's file but its provenance. The first thing done is a short
sweep that compiles every kernel, so that all ways find them compiled.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from specmd.policy.registry import choose, entries

PROFILES = ["rtx4090", "h100_sxm", "t4", "a100_80gb"]
RUNS = 2000


def policies() -> list[str]:
    """All eviction policies that need no training, and their variants of a word or a flag."""
    found = []
    for entry in entries("evict"):
        if "training" in entry.needs:
            continue
        found.append(entry.name)
        for name, each in entry.row()["parameters"].items():
            kinds = ["true", "false"] if each["type"] == "bool" else each["type"].split("|")
            if each["type"] == "bool" or len(kinds) > 1:
                spelled = [f"{entry.name}:{name}={kind}" for kind in kinds]
                found += [each for each in spelled if choose("evict", each).spelled != entry.name]
    return found


EVICT = policies()


def options(args: argparse.Namespace, capacities: int) -> list[str]:
    found = [f"--tokens={args.tokens}"] if args.tokens else []
    found += [f"--evict={name}" for name in EVICT]
    found += [f"--capacity={2 * (index + 1)}%" for index in range(capacities)]
    return found + [f"--profile={name}" for name in PROFILES]


def command(args: argparse.Namespace, out: Path, *extra: str, capacities: int = 0) -> list[str]:
    grid = options(args, capacities or args.capacities)
    where = ["--out", str(out), "--format", "csv"]
    return [sys.executable, "-m", "specmd", "sweep", args.trace, *grid, *where, *extra]


def go(args: argparse.Namespace, out: Path, *extra: str, capacities: int = 0) -> tuple[float, int]:
    """Sweep; returns seconds, and the most memory in bytes that its processes had together."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command(args, out, *extra, capacities=capacities), stdout=subprocess.DEVNULL
    )
    most = 0
    while process.poll() is None:
        most = max(most, memory(process.pid))
        time.sleep(0.25)
    if process.returncode:
        raise SystemExit(f"the sweep ended with {process.returncode}")
    return time.perf_counter() - started, most


def memory(pid: int) -> int:
    """Proportional set size of a process and all it started, where Linux says so."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(folder.joinpath("stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(folder.name))
    total, waiting = 0, [pid]
    while waiting:
        each = waiting.pop()
        waiting += children.get(each, [])
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def digests(folder: Path) -> dict[str, str]:
    """Hash what each run of a folder says, provenance apart."""
    found = {}
    for path in folder.glob("*.json"):
        run = json.loads(path.read_text())
        run.pop("provenance")
        text = json.dumps(run, sort_keys=True)
        found[path.stem] = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return found


def kill_half_way(args: argparse.Namespace, out: Path, half: int) -> int:
    """Start a sweep, kill it and all its processes once half is done; returns what is there."""
    process = subprocess.Popen(
        command(args, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and len(list(out.glob("*.json"))) < half:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return len(list(out.glob("*.json")))


def merge(into: Path, *folders: Path) -> None:
    into.mkdir()
    for folder in folders:
        for path in folder.glob("*.json"):
            shutil.copy(path, into)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace")
    parser.add_argument("--tokens", type=int, default=20000, help="of the trace; 0: all")
    parser.add_argument(
        "--capacities", type=int, default=math.ceil(RUNS / len(EVICT) / len(PROFILES))
    )
    parser.add_argument("--work", type=Path, help="folder to work in; default a temporary one")
    parser.add_argument("--dask", action="store_true", help="also on a local dask cluster")
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp(prefix="sweep-"))
    runs = len(EVICT) * args.capacities * len(PROFILES)
    print(f"{runs} runs, {args.tokens or 'all'} tokens, {os.cpu_count()} cores, into {work}")

    cold_s, _ = go(args, work / "warming", capacities=1)
    print(f"cold: {len(EVICT) * len(PROFILES)} runs in {cold_s:.1f} s, kernels compiled")
    taken: dict[str, float] = {}
    ways = {"one": ["--jobs", "1"], "two": ["--jobs", "2"]}
    if args.dask:
        ways["dask"] = ["--jobs", "2", "--executor", "dask-local"]
    for name, extra in ways.items():
        taken[name], most = go(args, work / name, *extra)
        rate = runs / taken[name]
        print(f"{name}: {taken[name]:.1f} s, {rate:.1f} runs/s, {most / 1e6:,.0f} MB at most")
    print(f"speed-up of two processes over one: {taken['one'] / taken['two']:.2f}")
    again_s, _ = go(args, work / "two")
    print(f"nothing left to do: {again_s:.1f} s, the table included")

    for index in (1, 2):
        go(args, work / f"shard{index}", "--shard", f"{index}/2")
    merge(work / "shards", work / "shard1", work / "shard2")
    left = kill_half_way(args, work / "killed", runs // 2)
    go(args, work / "killed")
    print(f"killed: {left} of {runs} runs were there, and the rest was made")

    expected = digests(work / "one")
    assert len(expected) == runs, f"{len(expected)} files of {runs} runs"
    for name in [*list(ways)[1:], "shards", "killed"]:
        same = digests(work / name) == expected
        print(f"{name}: {'the same' if same else 'OTHER'} {len(expected)} ids and contents as one")
        assert same
    if args.work is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
