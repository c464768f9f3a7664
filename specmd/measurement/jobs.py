"""Live runs, one after another: a single one here, several in a fresh process each.

What an allocator, a page cache or a compiled kernel remembers of one run must not help the next, so
a grid of live runs starts a new process for every one of them. They never overlap: two runs at once
would measure each other.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from specmd.errors import SpecmdError
from specmd.measurement.settings import LiveSettings
from specmd.measurement.sources import Source
from specmd.policy.registry import add_plugin
from specmd.runs.contract import contract
from specmd.runs.identity import digest, provenance
from specmd.runs.options import RunConfig
from specmd.runs.run import Run, TraceFacts, kept_run, write_run
from specmd.sweep.executor import Executor, FreshProcesses, blamed, limited
from specmd.sweep.jobs import Rerun, ship
from specmd.sweep.sweep import OnResult, Tally

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
    tags: tuple[tuple[str, float], ...] = ()
    keeps_failures: bool = False
    limit_s: float | None = None

    @property
    def failure_id(self) -> str:
        """Name its failure: that of a run is known to the machine alone that runs it."""
        inputs = replace(self, argv=(), out=None, rerun=False, keeps_failures=False, limit_s=None)
        return digest({"job": repr(inputs)})

    @property
    def name(self) -> str:
        """Return the name of its failure."""
        return self.failure_id

    @property
    def makes(self) -> frozenset[Hashable]:
        """Live runs never overlap: nothing is made beside another."""
        return frozenset()

    def parts(self) -> list[LiveJob]:
        """Return what there is: it is one run."""
        return [self]

    def perform(self) -> Iterator[Run]:
        """Run it here."""
        with limited(self.name, self.limit_s):
            run = run_job(self)
        yield run

    def failed(self, reason: str) -> Run:
        """Record a run that came to no numbers."""
        run = _failed(self, reason)
        if self.folder is not None and self.keeps_failures:
            write_run(run, self.folder)
        return run

    # What a cluster asks (see `specmd.sweep.worker.PortableTask`).

    @property
    def folder(self) -> Path | None:
        """Return the folder of the results."""
        return None if self.out is None else Path(self.out)

    @property
    def resources(self) -> Mapping[str, float]:
        """Return what its worker must offer."""
        return dict(self.tags)

    @property
    def fresh(self) -> bool:
        """Whatever ran before would be measured as well."""
        return True

    def beside(self) -> Mapping[str, bytes]:
        """Return the results of the same policy and capacity: one of them may be this one's."""
        if self.folder is None or self.rerun:
            return {}
        found = {}
        for trace in self.folder.glob("*.npz"):
            run = kept_run(self.folder, trace.stem)
            if run is not None and _alike(run.config, self.config):
                found[f"{run.id}.json"] = (self.folder / f"{run.id}.json").read_bytes()
                found[trace.name] = b""
        return found

    def inputs(self) -> dict[str, dict[str, Path]]:
        """Return the files behind traces, plug-ins, and shapes that are files; models stay."""
        traces = {self.training or "", *self.source.traces()}
        return ship(traces, [self.config.shape or ""], self.plugins)

    def moved(self, places: Mapping[str, str], out: Path, bounds: Path) -> LiveJob:
        """Return it with its inputs elsewhere, to write into `out`."""
        settings = self.settings
        if settings.scratch is not None:
            settings = settings.model_copy(update={"scratch": str(out)})
        shape = self.config.shape and places.get(self.config.shape, self.config.shape)
        return replace(
            self,
            source=self.source.moved(places),
            config=self.config.model_copy(update={"shape": shape}),
            settings=settings,
            training=self.training and places.get(self.training, self.training),
            plugins=tuple(places.get(each, each) for each in self.plugins),
            out=str(out),
        )


def _alike(one: RunConfig, other: RunConfig) -> bool:
    return (one.evict, one.capacity_slots) == (other.evict, other.capacity_slots)


def refuse_job(job: LiveJob) -> None:
    """Raise SpecmdError for what can be seen to be wrong before a model is loaded."""
    from specmd.measurement.measuring import refuse

    on_disk = job.settings.scratch is not None or job.settings.checkpoint is not None
    if job.config.host_slots is not None and not on_disk:
        raise SpecmdError("--host-capacity needs a disk behind the host: --experts disk")
    if job.config.host_slots is None and job.settings.scratch is not None:
        raise SpecmdError("--experts disk of a trace needs a --host-capacity")
    if job.settings.quality and not hasattr(job.source, "generation"):
        raise SpecmdError("quality is that of a model: a trace is followed by random weights")
    refuse(job.config)


def carry_out(
    jobs: Sequence[LiveJob],
    rerun: Rerun,
    on_result: OnResult | None = None,
    executor: Executor[LiveJob] | None = None,
) -> Tally:
    """Make live runs as part of a sweep: their failures are kept, and are results until asked for.

    What has a result is found out by the process of a run, which knows its machine.
    """
    found, todo = Tally(), []
    before: set[str] = set()
    for job in jobs:
        folder = job.folder
        assert folder is not None
        before |= {path.stem for path in folder.glob("*.npz")}
        if rerun == "none" and kept_run(folder, job.failure_id) is not None:
            found = replace(found, failed=found.failed + 1)
        else:
            (folder / f"{job.failure_id}.json").unlink(missing_ok=True)
            todo.append(job)
    try:
        with closing((executor or FreshProcesses()).run(todo)) as results:
            for finished, run in enumerate(results, start=1):
                kind: str = "done" if run.status == "ok" else run.status
                if kind == "done" and run.id in before and rerun != "all":
                    kind = "existing"
                found = replace(found, **{kind: getattr(found, kind) + 1})
                if on_result:
                    on_result(run, finished, len(todo))
    except KeyboardInterrupt:
        return replace(found, interrupted=True)
    return found


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
    return Run(
        id=job.failure_id,
        source="measured",
        label="measured",
        status="failed",
        reason=blamed(reason, job.config),
        config=job.config,
        trace=facts,
        contract=contract(job.config),
        provenance=provenance(job.config, "", job.argv),
    )
