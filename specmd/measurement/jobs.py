"""Live runs, one after another: a single one here, several in a fresh process each.

What an allocator, a page cache or a compiled kernel remembers of one run must not help the next, so
a grid of live runs starts a new process for every one of them. They never overlap: two runs at once
would measure each other.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from specmd.measurement.settings import LiveSettings
from specmd.measurement.sources import Source
from specmd.policy.registry import add_plugin
from specmd.runs.contract import contract
from specmd.runs.identity import digest, provenance
from specmd.runs.options import RunConfig
from specmd.runs.run import Run, TraceFacts, kept_run, write_run
from specmd.sweep.executor import Executor, FreshProcesses, blamed

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LiveJob:
    """One live run, as it travels to its process; paths are text."""

    source: Source
    config: RunConfig
    settings: LiveSettings
    training: str | None = None
    bounds: bool = True
    plugins: tuple[str, ...] = ()
    out: str | None = None
    rerun: bool = False
    timeline: str | None = None
    argv: tuple[str, ...] = ()

    @property
    def makes(self) -> frozenset[Hashable]:
        """Live runs never overlap: nothing is made beside another."""
        return frozenset()

    def parts(self) -> list[LiveJob]:
        """Return what there is: it is one run."""
        return [self]

    def perform(self) -> Iterator[Run]:
        """Run it here."""
        yield run_job(self)

    def failed(self, reason: str) -> Run:
        """Record a run that came to no numbers."""
        return _failed(self, reason)


def run_jobs(
    jobs: Sequence[LiveJob],
    progress: Progress | None = None,
    executor: Executor[LiveJob] | None = None,
) -> Iterator[Run]:
    """Run everything in order; yield each run, failed ones too.

    Several go through an executor; by default each has a fresh process.

    Raises:
        SpecmdError: the only job of a list of one cannot be run.

    """
    if len(jobs) == 1:
        yield run_job(jobs[0], progress)
        return
    with closing((executor or FreshProcesses()).run(jobs)) as results:
        yield from results


def run_job(job: LiveJob, progress: Progress | None = None) -> Run:
    """Run one job here, or read its result if there is one and it may be kept."""
    from specmd.measurement.identity import measured_id
    from specmd.measurement.measuring import measure
    from specmd.trace import load, save

    for path in job.plugins:
        add_plugin(Path(path))
    training = None if job.training is None else load(job.training)
    workload = job.source.workload()
    folder = None if job.out is None else Path(job.out)
    if folder is not None:
        name = measured_id(workload, job.config, job.settings, training=training, bounds=job.bounds)
        found = kept_run(folder, name)
        if found is not None and not job.rerun and (folder / f"{name}.npz").is_file():
            return found
    timeline = None
    if job.timeline is not None:
        from specmd.runs.timeline import Timeline

        timeline = Timeline()
    measured = measure(
        workload,
        job.config,
        job.settings,
        training=training,
        bounds=job.bounds,
        timeline=timeline,
        argv=job.argv,
        progress=progress,
    )
    if timeline is not None and job.timeline is not None:
        timeline.write(Path(job.timeline))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        save(measured.trace, folder / f"{measured.run.id}.npz")
        write_run(measured.run, folder)
    return measured.run


def _failed(job: LiveJob, reason: str) -> Run:
    header = job.source.header()
    facts = TraceFacts(
        name=header.model,
        digest="",
        model=header.model,
        kind="recorded",
        num_layers=header.num_layers,
        num_experts=header.num_experts,
        top_k=header.top_k,
        expert_bytes=header.expert_bytes,
        tokens=0,
        steps=0,
        requests=0,
        counted_tokens=0,
        counted_steps=0,
        complete=False,
    )
    inputs = replace(job, argv=(), out=None)
    return Run(
        id=digest({"job": repr(inputs)}),
        source="measured",
        label="measured",
        status="failed",
        reason=blamed(reason, job.config),
        config=job.config,
        trace=facts,
        contract=contract(job.config),
        provenance=provenance(job.config, "", job.argv),
    )
