"""Sweep: a grid over traces on all cores, one file a run, so that nothing done is ever lost.

The name of a run's file is the hash of its inputs; what is there already is not run again. Runs are
independent, so each core takes the next one. A process that dies (out of memory, a crash in a
plug-in) takes down the pool, and nobody can say which of the runs in flight was to blame: each of
them is tried once more, alone, and the one that kills its process again is recorded as failed.
Everything else completes. Failures are files too, and are run again on request.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Literal

from specmd.config import RunConfig
from specmd.description import without_numbers
from specmd.errors import SpecmdError
from specmd.grid import Grid
from specmd.policy.registry import add_plugin
from specmd.provenance import run_id
from specmd.results import Run, read_run, write_run
from specmd.simulation import try_config
from specmd.trace import Trace, load

Rerun = Literal["none", "failed", "all"]
OnResult = Callable[[Run, int, int], None]
Results = Generator[Run, None, None]

BOUNDS_FOLDER = ".bounds"
"""Folder beside the results in which the workers share the bounds they computed."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep: which trace file, which configuration, and the name of its result."""

    trace: str
    config: RunConfig
    run_id: str

    @property
    def kernel(self) -> tuple[str, ...]:
        """What is compiled for it: runs that agree here share a kernel on disk."""
        policies = (self.config.evict, self.config.prefetch)
        names = (spelled.partition(":")[0] for spelled in policies)
        return (*names, str(self.config.sequential), str(self.config.profile is not None))


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


@dataclass(frozen=True)
class _Setting:
    """What all runs of a sweep share, as it travels to the workers."""

    out: Path
    training: str | None
    bounds: bool
    plugins: tuple[str, ...]
    argv: tuple[str, ...]


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
        grid: the options of the runs (see specmd.grid).
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
    setting = _Setting(
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
        with closing(_results(todo, setting, cores)) as results:
            for finished, run in enumerate(results, start=1):
                kind = "done" if run.status == "ok" else run.status
                found = replace(found, **{kind: getattr(found, kind) + 1})
                if on_result:
                    on_result(run, finished, total)
    except KeyboardInterrupt:
        return replace(found, interrupted=True)
    return found


def _results(todo: deque[Job], setting: _Setting, workers: int) -> Results:
    """Run everything; yield each run, whatever became of it, once its file is written."""
    while todo:
        suspects: list[Job] = []
        yield from _in_pool(todo, setting, workers, suspects)
        for job in suspects:
            guilty: list[Job] = []
            yield from _in_pool(deque([job]), setting, 1, guilty)
            if guilty:
                yield _failure(job, setting, "its worker process died, twice: killed or crashed")


def _in_pool(todo: deque[Job], setting: _Setting, workers: int, lost: list[Job]) -> Results:
    """Run jobs until none is left or the pool breaks; `lost` gets the jobs in flight then."""
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        max(1, min(workers, len(todo))),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(setting.plugins,),
    )
    flying: dict[Future[Run], Job] = {}
    compiled: set[tuple[str, ...]] = set()
    try:
        while (todo or flying) and not lost:
            while todo and len(flying) < workers:
                job = _next(todo, compiled, {each.kernel for each in flying.values()})
                try:
                    flying[pool.submit(_perform, job, setting)] = job
                except BrokenExecutor:  # a worker died while it was idle, or starting
                    lost.append(job)
                    break
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                job = flying.pop(future)
                error = future.exception()
                compiled.add(job.kernel)
                if isinstance(error, BrokenExecutor):
                    lost.append(job)
                elif error is not None:
                    yield _failure(job, setting, f"{type(error).__name__}: {error}")
                else:
                    yield future.result()
        for future in wait(flying).done:  # the pool broke: all of them end now
            if isinstance(future.exception(), BrokenExecutor):
                lost.append(flying[future])
            elif future.exception() is None:
                yield future.result()
            else:
                yield _failure(flying[future], setting, str(future.exception()))
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _next(todo: deque[Job], compiled: set[tuple[str, ...]], busy: set[tuple[str, ...]]) -> Job:
    """Take the next job; rather not one whose kernel another worker is compiling right now."""
    for job in todo:
        if job.kernel in compiled or job.kernel not in busy:
            todo.remove(job)
            return job
    return todo.popleft()


def _existing(out: Path, job: Job, rerun: Rerun) -> str:
    """Status of the result that is there and may stay; empty if the job is to be run."""
    try:
        status = read_run(out / f"{job.run_id}.json").status
    except SpecmdError:  # none, or one that cannot be read: made anew
        return ""
    return "" if rerun == "all" or (rerun == "failed" and status == "failed") else status


def _failure(job: Job, setting: _Setting, reason: str) -> Run:
    run = without_numbers(
        load(job.trace),
        job.config,
        "failed",
        reason,
        name=Path(job.trace).stem,
        training=load(setting.training) if setting.training else None,
        bounds=setting.bounds,
        argv=setting.argv,
    )
    write_run(run, setting.out)
    return run


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# What follows runs in the workers.


@lru_cache(maxsize=2)
def _load(path: str) -> Trace:
    return load(path)


def _start_worker(plugins: tuple[str, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    for plugin in plugins:
        add_plugin(plugin)


def _perform(job: Job, setting: _Setting) -> Run:
    run = try_config(
        _load(job.trace),
        job.config,
        name=Path(job.trace).stem,
        training=_load(setting.training) if setting.training else None,
        bounds=setting.bounds,
        keep_bounds_in=setting.out / BOUNDS_FOLDER,
        argv=setting.argv,
    )
    write_run(run, setting.out)
    return run
