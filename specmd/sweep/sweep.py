"""Sweep: a grid over traces on all cores, one file a run, so that nothing done is ever lost.

The name of a run's file is the hash of its inputs; what is there already is not run again, so a
sweep is resumed by starting it again. Runs are independent, so each core takes the next one, and
`shard` divides them over machines. Failures are files too, and are run again on request.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Literal

from specmd.errors import SpecmdError
from specmd.policy.registry import add_plugin
from specmd.runs.identity import run_id
from specmd.runs.resolve import Grid
from specmd.runs.run import Run, read_run
from specmd.sweep.executor import Job, Setting, run_jobs
from specmd.trace import load

__all__ = ["Job", "OnResult", "Rerun", "Tally", "plan", "sweep"]

Rerun = Literal["none", "failed", "all"]
OnResult = Callable[[Run, int, int], None]


@dataclass(frozen=True)
class Tally:
    """What a sweep did.

    `existing` runs had a result and were left alone; failures among them count as `failed`.
    """

    done: int = 0
    skipped: int = 0
    failed: int = 0
    existing: int = 0
    interrupted: bool = False


def plan(
    traces: Sequence[str | PathLike[str]],
    grid: Grid,
    *,
    training: str | PathLike[str] | None = None,
    bounds: bool = True,
    shard: tuple[int, int] = (1, 1),
) -> list[Job]:
    """List the runs of a sweep in order, without running any (`--dry-run`).

    `shard` (i, n) takes every n-th run from the i-th on. Raises SpecmdError for bad input.
    """
    index, count = shard
    if not 1 <= index <= count:
        raise SpecmdError(f"shard {index}/{count}: write i/n with i from 1 to n")
    learned = load(training) if training else None
    jobs: dict[str, Job] = {}
    for path in traces:
        trace = load(path)
        for config in grid.expand(trace.header):
            name = run_id(trace, config, bounds=bounds, training=learned)
            jobs.setdefault(name, Job(str(path), config, name))
    return list(jobs.values())[index - 1 :: count]


def sweep(
    traces: Sequence[str | PathLike[str]],
    grid: Grid,
    out: str | PathLike[str],
    *,
    training: str | PathLike[str] | None = None,
    bounds: bool = True,
    rerun: Rerun = "none",
    shard: tuple[int, int] = (1, 1),
    workers: int | None = None,
    plugins: Sequence[str | PathLike[str]] = (),
    on_result: OnResult | None = None,
) -> Tally:
    """Run a grid over traces on all cores.

    Args:
        traces: trace files.
        grid: the options of the runs (see specmd.runs.resolve).
        out: folder of the results, made if need be.
        training: trace that policies fitted beforehand are fitted on.
        bounds: whether to run the bounds too.
        rerun: which runs that have a result to run again: none of them, the failed, or all.
        shard: (i, n): only every n-th run, from the i-th on.
        workers: processes; by default one for each core this process may use.
        plugins: policy files or folders, registered here and in every worker.
        on_result: called as `on_result(run, finished, total)` after each run.

    Raises:
        SpecmdError: bad input, before anything runs. Failures of runs are results.

    """
    for plugin in plugins:
        add_plugin(Path(plugin))
    jobs = plan(traces, grid, training=training, bounds=bounds, shard=shard)
    setting = Setting(
        Path(out),
        str(training) if training else None,
        bounds,
        tuple(str(plugin) for plugin in plugins),
        tuple(sys.argv),
    )
    status = {job.run_id: _existing(setting.out, job, rerun) for job in jobs}
    todo = deque(job for job in jobs if not status[job.run_id])
    found = Tally(
        failed=sum(each == "failed" for each in status.values()),
        existing=sum(each in ("ok", "skipped") for each in status.values()),
    )
    total = len(todo)
    cores = _cores() if workers is None else workers
    try:
        with closing(run_jobs(todo, setting, cores)) as results:
            for finished, run in enumerate(results, start=1):
                kind = "done" if run.status == "ok" else run.status
                found = replace(found, **{kind: getattr(found, kind) + 1})
                if on_result:
                    on_result(run, finished, total)
    except KeyboardInterrupt:
        return replace(found, interrupted=True)
    return found


def _existing(out: Path, job: Job, rerun: Rerun) -> str:
    """Status of the result that is there and may stay; empty if the job is to be run."""
    try:
        status = read_run(out / f"{job.run_id}.json").status
    except SpecmdError:  # none, or one that cannot be read: made anew
        return ""
    return "" if rerun == "all" or (rerun == "failed" and status == "failed") else status


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
