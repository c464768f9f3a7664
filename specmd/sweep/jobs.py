"""Jobs, and the tasks they go to workers in: together where they share what is costly to make.

A run without prefetches and without a host tier decides the same on every device: jobs that differ
in nothing but profile and engine are one task, so that one process decides once and times the
decisions for each. Bounds are shared through a folder beside the results.
"""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from specmd.errors import SpecmdError
from specmd.policy.registry import Entry, add_plugin, entries, forget
from specmd.runs.contract import without_numbers
from specmd.runs.identity import policy_files, run_id
from specmd.runs.options import RunConfig
from specmd.runs.run import Run, kept_run, write_run
from specmd.simulation.simulate import try_config
from specmd.simulation.walk import is_timeless
from specmd.sweep.executor import blamed, limited
from specmd.trace import Trace, load
from specmd.trace.hub import located

BOUNDS_FOLDER = ".bounds"
"""Folder beside the results in which the workers share the bounds they computed."""

Rerun = Literal["none", "failed", "all"]

_DEVICE = {"profile", "engine"}
_SPELLED = {"capacity", "host_capacity"}
_NOT_BOUNDS = {"evict", "prefetch", "schedule", "route", "admission", "context"}
LIMIT_S = 900.0
"""Seconds that every run may take, and `LIMIT_PER_ACCESS_S` more for each access of its trace."""
LIMIT_PER_ACCESS_S = 2e-4
MADE_IN_S = "made_in_s"
"""Entry of a run's provenance: seconds that its making took."""
FEWEST_TOGETHER = 4
"""Jobs that share their decisions stay together at least so many at a time."""


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

    @property
    def bounds(self) -> tuple[str, str]:
        """Name the bounds beside which it is put, near enough."""
        free = _SPELLED | _NOT_BOUNDS | (set() if self.config.profile else {"capacity_slots"})
        return self.trace, self.config.model_dump_json(exclude=free)

    @property
    def decisions(self) -> tuple[str, str]:
        """Name the decisions it makes: its own, or those of any device."""
        free = _SPELLED | (_DEVICE if is_timeless(self.config) else set())
        return self.trace, self.config.model_dump_json(exclude=free)


@dataclass(frozen=True)
class Setting:
    """What all runs of a sweep share."""

    out: Path
    training: str | None
    bounds: bool
    plugins: tuple[str, ...]
    argv: tuple[str, ...]
    rerun: Rerun = "none"
    bounds_in: Path | None = None  # None: beside the results
    limit_s: float | None = None  # that a run may take; None: see `LIMIT_S`


@dataclass(frozen=True)
class JobTask:
    """Jobs as an executor takes them: a `specmd.sweep.executor.Task` that writes its results."""

    jobs: tuple[Job, ...]
    setting: Setting

    @property
    def name(self) -> str:
        """Return the id of its first run."""
        return self.jobs[0].run_id

    @property
    def makes(self) -> frozenset[Hashable]:
        """Name the kernels and the bounds that tasks after it need not make."""
        kernels = {("kernel", *job.kernel) for job in self.jobs}
        bounds = {("bounds", *job.bounds) for job in self.jobs if self.setting.bounds}
        return frozenset(kernels | bounds)

    def parts(self) -> list[JobTask]:
        """Return a task for each job."""
        return [replace(self, jobs=(job,)) for job in self.jobs]

    def perform(self) -> Iterator[Run]:
        """Simulate; raises SpecmdError if an input is not what it was when the job was planned."""
        _use_plugins(self.setting.plugins)
        for job in self.jobs:
            # Another sweep may have been here, or a process that died of a later job.
            found = existing(self.setting.out, job.run_id, self.setting.rerun)
            if found is None:
                limit_s = self.setting.limit_s
                if limit_s is None:
                    limit_s = LIMIT_S + LIMIT_PER_ACCESS_S * _load(job.trace).expert_ids.size
                with limited(job.run_id, limit_s):
                    found = self._make(job)
            yield found

    def _make(self, job: Job) -> Run:
        setting = self.setting
        trace = _load(job.trace)
        training = _load(setting.training) if setting.training else None
        if run_id(trace, job.config, bounds=setting.bounds, training=training) != job.run_id:
            raise SpecmdError(
                "an input of the run (trace, profile, policy, or SpecMD itself) was edited while "
                "the sweep ran: start it again"
            )
        started = time.perf_counter()
        made = try_config(
            trace,
            job.config,
            name=Path(job.trace).stem,
            training=training,
            bounds=setting.bounds,
            keep_bounds_in=setting.bounds_in or setting.out / BOUNDS_FOLDER,
            most_slots=job.most_slots,
            argv=setting.argv,
        )
        took = {MADE_IN_S: round(time.perf_counter() - started, 6)}
        run = made.model_copy(update={"provenance": made.provenance | took})
        write_run(run, setting.out)
        return run.kept_in(setting.out)

    # What a cluster asks (see `specmd.sweep.cluster.PortableTask`).

    @property
    def folder(self) -> Path:
        """Return the folder of the results."""
        return self.setting.out

    @property
    def resources(self) -> Mapping[str, float]:
        """Any worker can simulate."""
        return {}

    @property
    def fresh(self) -> bool:
        """A process that has seen others is the quicker for it."""
        return False

    def beside(self) -> Mapping[str, bytes]:
        """Return nothing: what has a result was not planned."""
        return {}

    def inputs(self) -> dict[str, dict[str, Path]]:
        """Return the files behind traces, plug-ins, and profiles and shapes that are files."""
        setting = self.setting
        configs = [job.config for job in self.jobs]
        traces = {job.trace for job in self.jobs} | {setting.training or ""}
        named = {each or "" for config in configs for each in (config.profile, config.shape)}
        return ship(traces, named, setting.plugins)

    def moved(self, places: Mapping[str, str], out: Path, bounds: Path) -> JobTask:
        """Return it with its inputs elsewhere, to write into `out` and share bounds in a folder."""

        def at(path: str) -> str:
            return places.get(path, path)

        def there(config: RunConfig) -> RunConfig:
            named = {name: getattr(config, name) for name in ("profile", "shape")}
            return config.model_copy(update={name: at(path) for name, path in named.items()})

        setting = replace(
            self.setting,
            out=out,
            bounds_in=bounds,
            training=self.setting.training and at(self.setting.training),
            plugins=tuple(map(at, self.setting.plugins)),
        )
        jobs = [replace(job, trace=at(job.trace), config=there(job.config)) for job in self.jobs]
        return JobTask(tuple(jobs), setting)

    def failed(self, reason: str) -> Run:
        """Write that it failed; of a task of one job."""
        (job,) = self.jobs
        setting = self.setting
        made = without_numbers(
            _load(job.trace),
            job.config,
            "failed",
            blamed(reason, job.config),
            name=Path(job.trace).stem,
            training=_load(setting.training) if setting.training else None,
            bounds=setting.bounds,
            argv=setting.argv,
        )
        run = made.model_copy(update={"id": job.run_id})
        write_run(run, setting.out)
        return run


def make_tasks(jobs: Sequence[Job], setting: Setting, workers: int) -> list[JobTask]:
    """Put jobs that share their decisions together, as far as that keeps all workers busy.

    What shares the plan of a prefetcher, of which a process keeps a few, comes one after another.
    """
    most = max(FEWEST_TOGETHER, math.ceil(len(jobs) / (4 * workers)))
    plans: dict[Hashable, dict[Hashable, list[Job]]] = {}
    for job in jobs:
        together = plans.setdefault((job.trace, job.config.prefetch), {})
        together.setdefault(job.decisions, []).append(job)
    return [
        JobTask(tuple(group[first : first + most]), setting)
        for together in plans.values()
        for group in together.values()
        for first in range(0, len(group), most)
    ]


def existing(out: Path, name: str, rerun: Rerun) -> Run | None:
    """Return the result that is there and may stay; None if the job is to be run.

    Raises SpecmdError for a file that is there and may be neither shown nor overwritten.
    """
    found = kept_run(out, name)
    again = rerun == "all" or (found is not None and rerun == found.status)
    return None if again else found


def ship(
    traces: Iterable[str], named: Iterable[str], plugins: Iterable[str]
) -> dict[str, dict[str, Path]]:
    """Return the files behind traces, what is named if it is a file, and plug-ins, by path."""
    paths = [path for path in traces if path] + [path for path in named if path.endswith(".toml")]
    return {
        **{path: {Path(path).name: located(path)} for path in paths},
        **{path: plugin_files(path) for path in plugins},
    }


def plugin_files(path: str) -> dict[str, Path]:
    """Return the files of a registered plug-in by name: its own, and those it imports beside it."""
    place = Path(path).resolve()
    folder = place if place.is_dir() else place.parent
    own = [
        entry
        for entry in entries()
        if Path(entry.origin) == place or Path(entry.origin).is_relative_to(place)
    ]
    files = {file.resolve() for entry in own for file in policy_files(entry.cls)}
    return {file.relative_to(folder).as_posix(): file for file in sorted(files)}


@lru_cache(maxsize=2)
def _load(path: str) -> Trace:
    return load(path)


@lru_cache(maxsize=1)
def _use_plugins(paths: tuple[str, ...]) -> None:
    """Register plug-ins in place of those used before: a worker may outlive a sweep."""
    global _used
    forget(_used)
    _used = [entry for path in paths for entry in add_plugin(path)]


_used: list[Entry] = []
