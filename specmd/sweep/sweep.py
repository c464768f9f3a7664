"""Sweep: a grid over traces on all cores, one file a run, so that nothing done is ever lost.

The name of a run's file is the hash of its inputs; what is there already is not run again, so a
sweep is resumed by starting it again. Runs are independent, so each core takes the next one, and
`shard` divides them over machines. Failures are files too, and are run again on request.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from os import PathLike
from pathlib import Path
from typing import Literal

from specmd.errors import SpecmdError
from specmd.hardware.machine import cores
from specmd.policy.registry import add_plugin
from specmd.runs.contract import without_numbers
from specmd.runs.identity import run_id
from specmd.runs.options import RunConfig
from specmd.runs.resolve import Grid
from specmd.runs.run import Run, kept_run, write_run
from specmd.simulation.simulate import try_config
from specmd.sweep.executor import Executor, LocalProcesses, blamed
from specmd.trace import Trace, load

BOUNDS_FOLDER = ".bounds"
"""Folder beside the results in which the workers share the bounds they computed."""

Rerun = Literal["none", "failed", "all"]
OnResult = Callable[[Run, int, int], None]


@dataclass(frozen=True)
class Job:
    """One run of a sweep: which trace file, which configuration, and the name of its result."""

    trace: str
    config: RunConfig
    run_id: str
    most_slots: int  # largest capacity of the sweep on this trace

    @property
    def kernel(self) -> tuple[str, ...]:
        """Name what is compiled for it."""
        policies = (self.config.evict, self.config.prefetch)
        names = (spelled.partition(":")[0] for spelled in policies)
        return (*names, str(self.config.sequential), str(self.config.profile is not None))


@dataclass(frozen=True)
class Setting:
    """What all runs of a sweep share."""

    out: Path
    training: str | None
    bounds: bool
    plugins: tuple[str, ...]
    argv: tuple[str, ...]


@dataclass(frozen=True)
class JobTask:
    """A job as an executor takes it (see `specmd.sweep.executor.Task`); it writes its result."""

    job: Job
    setting: Setting

    @property
    def kernel(self) -> tuple[str, ...]:
        """Name what is compiled for it."""
        return self.job.kernel

    def perform(self) -> Run:
        """Simulate; raises SpecmdError if an input is not what it was when the job was planned."""
        for plugin in self.setting.plugins:
            _add_plugin(plugin)
        job, setting = self.job, self.setting
        trace = _load(job.trace)
        training = _load(setting.training) if setting.training else None
        if run_id(trace, job.config, bounds=setting.bounds, training=training) != job.run_id:
            raise SpecmdError(
                "an input of the run (trace, profile, policy, or SpecMD itself) was edited while "
                "the sweep ran: start it again"
            )
        run = try_config(
            trace,
            job.config,
            name=Path(job.trace).stem,
            training=training,
            bounds=setting.bounds,
            keep_bounds_in=setting.out / BOUNDS_FOLDER,
            most_slots=job.most_slots,
            argv=setting.argv,
        )
        write_run(run, setting.out)
        return run

    def failed(self, reason: str) -> Run:
        """Write that it failed."""
        job, setting = self.job, self.setting
        made = without_numbers(
            load(job.trace),
            job.config,
            "failed",
            blamed(reason, job.config),
            name=Path(job.trace).stem,
            training=load(setting.training) if setting.training else None,
            bounds=setting.bounds,
            argv=setting.argv,
        )
        run = made.model_copy(update={"id": job.run_id})
        write_run(run, setting.out)
        return run


@lru_cache(maxsize=2)
def _load(path: str) -> Trace:
    return load(path)


@cache
def _add_plugin(path: str) -> None:
    add_plugin(path)


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
        configs = grid.expand(trace)
        most_slots = max(config.capacity_slots for config in configs)
        for config in configs:
            name = run_id(trace, config, bounds=bounds, training=learned)
            jobs.setdefault(name, Job(str(path), config, name, most_slots))
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
    executor: Executor | None = None,
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
        executor: where the runs are made; by default in `workers` processes of this machine.

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
    todo = [JobTask(job, setting) for job in jobs if not status[job.run_id]]
    found = Tally(
        failed=sum(each == "failed" for each in status.values()),
        existing=sum(each in ("ok", "skipped") for each in status.values()),
    )
    total = len(todo)
    executor = executor or LocalProcesses(workers or cores())
    try:
        with closing(executor.run(todo)) as results:
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
    found = kept_run(out, job.run_id)
    status = "" if found is None else found.status
    return "" if rerun == "all" or (rerun == "failed" and status == "failed") else status
