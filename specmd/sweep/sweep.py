"""Sweep: a grid over traces on all cores, one file a run, so that nothing done is ever lost.

The name of a run's file is the hash of its inputs; what is there already is not run again, so a
sweep is resumed by starting it again. Runs are independent, so each core takes the next one, and
`shard` divides them over machines. Failures are files too, and are run again on request.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TypeVar

from specmd.errors import SpecmdError
from specmd.hardware.machine import cores
from specmd.policy.registry import add_plugin
from specmd.runs.identity import run_id
from specmd.runs.resolve import Exclusion, Grid
from specmd.runs.run import Run
from specmd.sweep.executor import Executor, LocalProcesses
from specmd.sweep.jobs import Job, JobTask, Rerun, Setting, existing, make_tasks
from specmd.trace import load

T = TypeVar("T")
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

    def __add__(self, other: Tally) -> Tally:
        """Add up two parts of a sweep."""
        return Tally(
            self.done + other.done,
            self.skipped + other.skipped,
            self.failed + other.failed,
            self.existing + other.existing,
            self.interrupted or other.interrupted,
        )


def plan(
    traces: Sequence[str | PathLike[str]],
    grid: Grid | Sequence[Grid],
    *,
    exclude: Sequence[Exclusion] = (),
    training: str | PathLike[str] | None = None,
    bounds: bool = True,
    shard: tuple[int, int] = (1, 1),
) -> list[Job]:
    """List the runs of a sweep in order, without running any (`--dry-run`).

    `shard` (i, n) takes every n-th run from the i-th on. Raises SpecmdError for bad input.
    """
    grids = (grid,) if isinstance(grid, Grid) else grid
    learned = load(training) if training else None
    jobs: dict[str, Job] = {}
    for path in traces:
        trace = load(path)
        configs = [config for each in grids for config in each.expand(trace, training=learned)]
        configs = [each for each in configs if not any(rule.matches(each) for rule in exclude)]
        most_slots = max((config.capacity_slots for config in configs), default=0)
        for config in configs:
            name = run_id(trace, config, bounds=bounds, training=learned)
            jobs.setdefault(name, Job(str(path), config, name, most_slots))
    return share(list(jobs.values()), shard)


def share(jobs: Sequence[T], shard: tuple[int, int]) -> list[T]:
    """Return every n-th from the i-th on; raises SpecmdError where (i, n) is no such pair."""
    index, count = shard
    if not 1 <= index <= count:
        raise SpecmdError(f"shard {index}/{count}: write i/n with i from 1 to n")
    return list(jobs[index - 1 :: count])


def sweep(
    traces: Sequence[str | PathLike[str]],
    grid: Grid | Sequence[Grid],
    out: str | PathLike[str],
    *,
    training: str | PathLike[str] | None = None,
    bounds: bool = True,
    rerun: Rerun = "none",
    shard: tuple[int, int] = (1, 1),
    workers: int | None = None,
    plugins: Sequence[str | PathLike[str]] = (),
    on_result: OnResult | None = None,
    executor: Executor[JobTask] | None = None,
    time_limit: float | None = None,
) -> Tally:
    """Run a grid over traces on all cores.

    Args:
        traces: trace files.
        grid: the options of the runs (see specmd.runs.resolve); or several of them.
        out: folder of the results, made if need be.
        training: trace that policies fitted beforehand are fitted on.
        bounds: whether to run the bounds too.
        rerun: which runs that have a result to run again: none of them, the failed, or all.
        shard: (i, n): only every n-th run, from the i-th on.
        workers: processes; by default one for each core this process may use.
        plugins: policy files or folders, registered here and in every worker.
        on_result: called as `on_result(run, finished, total)` after each run.
        executor: where the runs are made; by default in `workers` processes of this machine.
        time_limit: seconds that a run may take; a longer one has failed. None: 15 minutes and
            0.2 ms an access.

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
        rerun,
        limit_s=time_limit,
    )
    return carry_out(jobs, setting, workers=workers, on_result=on_result, executor=executor)


def carry_out(
    jobs: Sequence[Job],
    setting: Setting,
    *,
    workers: int | None = None,
    on_result: OnResult | None = None,
    executor: Executor[JobTask] | None = None,
) -> Tally:
    """Make the runs of a plan that have no result yet, see `sweep`."""
    there = {job.run_id: existing(setting.out, job.run_id, setting.rerun) for job in jobs}
    todo = [job for job in jobs if there[job.run_id] is None]
    status = [run.status for run in there.values() if run is not None]
    failed = status.count("failed")
    found = Tally(failed=failed, existing=len(status) - failed)
    workers = workers or cores()
    executor = executor or LocalProcesses(workers)
    with _claimed(setting.out) as first:
        tasks = make_tasks(todo, setting, workers)
        try:
            with closing(executor.run(tasks if first else tasks[::-1])) as results:
                for finished, run in enumerate(results, start=1):
                    kind = "done" if run.status == "ok" else run.status
                    found = replace(found, **{kind: getattr(found, kind) + 1})
                    if on_result:
                        on_result(run, finished, len(todo))
        except KeyboardInterrupt:
            return replace(found, interrupted=True)
    return found


@contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
    """Say whether no other sweep works into a folder; who comes second starts at the other end."""
    try:
        import fcntl
    except ImportError:  # no such locks here: both do everything, and write the same
        yield True
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = os.open(folder, os.O_RDONLY)
    except OSError:  # writing says what is wrong
        yield True
        return
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(place)
