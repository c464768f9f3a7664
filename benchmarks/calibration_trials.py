"""Does a calibration know when it failed? Calibrate, run and validate, ten times.

    python benchmarks/calibration_trials.py [--quiet 5] [--busy 5] [--limit 0.25] [--timeout 240]

A busy trial runs beside a process a core that does nothing but spin. A profile that is accepted
has to predict TTFT and TPOT of every run within the limit; one that is refused has to say why. Runs
that were measured while the machine was busy, beside an accepted profile, are named and not judged.
One row a trial, and exit code 1 if one of them broke that.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SPECMD = [sys.executable, "-m", "specmd"]
RUN = (
    *("run", "tiny", "-e", "lru", "-e", "lfu", "-c", "40%", "--throttle", "0.05GB/s,20us"),
    *("--domain", "code", "--max-new-tokens", "8", "--no-bounds", "--out", "runs"),
)
VALIDATE = ("simulate", "--validate", "runs", "--profile", "mine.toml", "--export", "errors.csv")
SPIN = "while True: pass"


@contextmanager
def spinning(count: int) -> Iterator[None]:
    """Keep `count` cores busy."""
    spinners = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def specmd(folder: str, until: float, *argv: str) -> tuple[int, str]:
    """Run a command: exit code and standard error; -1 where time is up."""
    try:
        done = subprocess.run(
            [*SPECMD, *argv],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=max(1.0, until - time.monotonic()),
        )
    except subprocess.TimeoutExpired:
        return -1, ""
    return done.returncode, done.stdout + done.stderr


def trial(limit: float, timeout_s: float) -> tuple[str, str]:
    """Calibrate, run, validate: (verdict, detail); the verdict is accepted, refused or BROKEN."""
    until = time.monotonic() + timeout_s
    with tempfile.TemporaryDirectory() as folder:
        code, said = specmd(folder, until, "calibrate", "tiny", "--out", "mine.toml")
        if code == -1:
            return "out of time", "calibrate"
        if code:
            why = [line for line in said.splitlines() if "is not written:" in line]
            return ("refused", why[0].partition("is not written: ")[2]) if why else ("BROKEN", said)
        code, said = specmd(folder, until, *RUN)
        if code:
            return ("out of time", "run") if code == -1 else ("BROKEN", said)
        code, said = specmd(folder, until, *VALIDATE)
        if code:
            return ("out of time", "validate") if code == -1 else ("BROKEN", said)
        with (Path(folder) / "errors.csv").open() as file:
            rows = list(csv.DictReader(file))
    errors = {
        f"{row['evict']} {name.upper()}": float(row[f"{name}_s_error"])
        for row in rows
        for name in ("ttft", "tpot")
    }
    detail = ", ".join(f"{name} {error:+.1%}" for name, error in errors.items())
    if "measured on a busy machine" in said:
        return "runs busy", detail
    worst = max(abs(error) for error in errors.values())
    return ("accepted" if worst <= limit else "BROKEN"), detail


def main() -> int:
    """Print a row a trial."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quiet", type=int, default=5, help="trials on the machine as it is")
    parser.add_argument("--busy", type=int, default=5, help="trials with all cores loaded")
    parser.add_argument("--limit", type=float, default=0.25, help="allowed error")
    parser.add_argument("--timeout", type=float, default=240.0, help="seconds a trial")
    options = parser.parse_args()
    broken = False
    cores = len(os.sched_getaffinity(0))
    for number in range(options.quiet + options.busy):
        busy = number >= options.quiet
        began = time.monotonic()
        with spinning(cores if busy else 0):
            verdict, detail = trial(options.limit, options.timeout)
        broken |= verdict == "BROKEN"
        kind = "busy" if busy else "quiet"
        taken_s = time.monotonic() - began
        print(f"{number + 1:2} {kind:5} {taken_s:4.0f} s  {verdict:11} {detail}", flush=True)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
