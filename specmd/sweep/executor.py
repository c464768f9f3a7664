"""Processes that run the jobs of a sweep, and may die of it.

A process that dies takes its pool down, and nobody can say which of the runs in flight was to
blame: each of them is tried once more, alone, and the one that kills its process again is recorded
as failed. Everything else completes. Workers start from a fork server that has imported the
simulator once, where the platform has one.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.context import BaseContext
from pathlib import Path

from specmd.errors import SpecmdError
from specmd.policy.registry import add_plugin
from specmd.runs.contract import without_numbers
from specmd.runs.identity import run_id
from specmd.runs.options import RunConfig
from specmd.runs.run import Run, write_run
from specmd.simulation.simulate import try_config
from specmd.trace import Trace, load

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
class Setting:
    """What all runs of a sweep share, as it travels to the workers."""

    out: Path
    training: str | None
    bounds: bool
    plugins: tuple[str, ...]
    argv: tuple[str, ...]


def run_jobs(todo: deque[Job], setting: Setting, workers: int) -> Results:
    """Run everything; yield each run, whatever became of it, once its file is written."""
    while todo:
        suspects: list[Job] = []
        yield from _in_pool(todo, setting, workers, suspects)
        for job in suspects:
            guilty: list[Job] = []
            yield from _in_pool(deque([job]), setting, 1, guilty)
            if guilty:
                yield _failure(job, setting, "its worker process died, twice: killed or crashed")


def _in_pool(todo: deque[Job], setting: Setting, workers: int, lost: list[Job]) -> Results:
    """Run jobs until none is left or the pool breaks; `lost` gets the jobs in flight then."""
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        max(1, min(workers, len(todo))),
        mp_context=_context(),
        initializer=_start_worker,
        initargs=(setting.plugins,),
    )
    flying: dict[Future[Run], Job] = {}
    compiled: set[tuple[str, ...]] = set()
    try:
        while (todo or flying) and not lost:
            while todo and len(flying) < workers:
                job = next_job(todo, compiled, {each.kernel for each in flying.values()})
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
                    yield _failure(job, setting, _said(error))
                else:
                    yield future.result()
        for future in wait(flying).done:  # the pool broke: all of them end now
            if isinstance(future.exception(), BrokenExecutor):
                lost.append(flying[future])
            elif future.exception() is None:
                yield future.result()
            else:
                yield _failure(flying[future], setting, _said(future.exception()))
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def next_job(todo: deque[Job], compiled: set[tuple[str, ...]], busy: set[tuple[str, ...]]) -> Job:
    """Take the next job; rather not one whose kernel another worker is compiling right now."""
    for job in todo:
        if job.kernel in compiled or job.kernel not in busy:
            todo.remove(job)
            return job
    return todo.popleft()


def _said(error: BaseException | None) -> str:
    return str(error) if isinstance(error, SpecmdError) else f"{type(error).__name__}: {error}"


def _failure(job: Job, setting: Setting, reason: str) -> Run:
    made = without_numbers(
        load(job.trace),
        job.config,
        "failed",
        reason,
        name=Path(job.trace).stem,
        training=load(setting.training) if setting.training else None,
        bounds=setting.bounds,
        argv=setting.argv,
    )
    run = made.model_copy(update={"id": job.run_id})
    write_run(run, setting.out)
    return run


def _context() -> BaseContext:
    """How workers start: never as a fork of this process, whose threads and locks they would get.

    Where there is a fork server, it imports the simulator once for all of them.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["specmd.sweep.executor"])
    return context


# What follows runs in the workers.


@lru_cache(maxsize=2)
def _load(path: str) -> Trace:
    return load(path)


def _start_worker(plugins: tuple[str, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    for plugin in plugins:
        add_plugin(plugin)


def _perform(job: Job, setting: Setting) -> Run:
    trace = _load(job.trace)
    training = _load(setting.training) if setting.training else None
    if run_id(trace, job.config, bounds=setting.bounds, training=training) != job.run_id:
        raise SpecmdError(
            "an input of the run (trace, profile, policy, or SpecMD itself) was edited while the "
            "sweep ran: start it again"
        )
    run = try_config(
        trace,
        job.config,
        name=Path(job.trace).stem,
        training=training,
        bounds=setting.bounds,
        keep_bounds_in=setting.out / BOUNDS_FOLDER,
        argv=setting.argv,
    )
    write_run(run, setting.out)
    return run
