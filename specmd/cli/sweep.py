"""`specmd sweep`: a grid in parallel, one file a run, resumable, in shards if need be."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from specmd.cli.options import AGAIN, TRACES, Options, takes_options
from specmd.errors import Exit, SpecmdError

if TYPE_CHECKING:
    from specmd.measurement.jobs import LiveJob
    from specmd.runs.run import Run
    from specmd.sweep.cluster import DaskCluster
    from specmd.sweep.experiment import Experiment
    from specmd.sweep.jobs import Job
    from specmd.sweep.sweep import Tally


@takes_options()
def sweep(
    traces: Annotated[list[Path] | None, TRACES] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the results, one file a run.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml", help="Experiment to run; options given here override it."
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Processes; by default one a core.")
    ] = None,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Only the I-th of N parts, for job arrays.")
    ] = "1/1",
    executor: Annotated[
        Literal["local", "dask-local", "dask"],
        typer.Option(
            help="Where runs are made: processes here, dask workers here, or a dask cluster."
        ),
    ] = "local",
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Of the dask cluster: tcp://host:8786, or its scheduler file."
        ),
    ] = None,
    resource: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=AMOUNT",
            help=f"Live runs go to dask workers that offer it; once to each of several.{AGAIN}",
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.001,
            help="A run that takes longer has failed; default 15 minutes and 0.2 ms an access, for "
            "live runs none.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the runs and their number; run nothing.")
    ] = False,
    rerun: Annotated[
        Literal["none", "failed", "all"],
        typer.Option(help="Which runs that have a result to run again."),
    ] = "none",
    *,
    options: Options,
) -> int:
    """Run a grid on all cores; what has a result is left alone.

    Exit code 4 says that some runs failed, 130 that it was interrupted; what is done is kept.
    """
    from specmd.cli.progress import progress
    from specmd.cli.requests import deliver, grid_of, prepare
    from specmd.report.names import policy_name
    from specmd.sweep.jobs import Setting
    from specmd.sweep.sweep import carry_out, plan, share

    written = _merge(config, traces, out, resource, options)
    options = replace(
        options,
        plugin=list(written.plugin),
        training=written.training,
        no_bounds=not written.bounds,
    )
    if not (written.traces or written.models or written.follow):
        raise SpecmdError("no trace to sweep over: name one, or give --config")
    if written.out is None and not dry_run:
        raise SpecmdError("no folder for the results: give --out DIR")
    prepare(options)
    grids = [grid_of(options, given) for given in written.given()]
    part = _parse_shard(shard)
    todo = plan(
        written.traces,
        grids,
        exclude=written.exclude,
        training=written.training,
        bounds=written.bounds,
        shard=part,
    )
    live: list[LiveJob] = []
    if written.models or written.follow:
        from specmd.measurement.planning import plan_live

        live = plan_live(written, grids, out=written.out, again=rerun == "all", argv=sys.argv)
        live = share(live, part)
    if part == (1, 1) and not (todo or live):
        raise SpecmdError("no run is left: [[exclude]] matches all of the grid")
    if dry_run:
        _show_plan(todo, live, options)
        _say_estimate(todo, written, options, jobs)
        return Exit.OK
    assert written.out is not None
    workers = _executor(executor, scheduler, jobs)
    finished: dict[str, Run] = {}
    with progress("sweeping") as report:

        def note(run: Run, done: int, total: int) -> None:
            finished[run.id] = run
            report(done, total, policy_name(run))

        plugins = tuple(map(str, written.plugin))
        training = str(written.training) if written.training else None
        setting = Setting(
            *(written.out, training, written.bounds, plugins, tuple(sys.argv), rerun),
            limit_s=time_limit,
        )
        tally = carry_out(todo, setting, workers=jobs, on_result=note, executor=workers)
    if live and not tally.interrupted:
        from specmd.measurement.jobs import carry_out as carry_out_live

        live = [replace(job, limit_s=time_limit) for job in live]
        with progress("running live") as report:
            tally += carry_out_live(live, rerun, on_result=note, executor=workers)
    runs = _in_order(todo, finished, written.out)
    if runs or options.form != "table":  # a shard may have none
        deliver(runs, options)
    return _conclude(tally, runs, written.out)


def _merge(
    config: Path | None,
    traces: list[Path] | None,
    out: Path | None,
    resource: list[str] | None,
    options: Options,
) -> Experiment:
    """Let what was given on the command line override what is written down."""
    from specmd.sweep.experiment import Experiment, read_experiment

    written = read_experiment(config) if config else Experiment()
    live = written.live
    if resource:
        live = live.model_copy(update={"resources": tuple(map(_parse_resource, resource))})
    return written.model_copy(
        update={
            "traces": tuple(traces or written.traces),
            "out": out or written.out,
            "plugin": (*written.plugin, *(options.plugin or ())),
            "training": options.training or written.training,
            "bounds": written.bounds and not options.no_bounds,
            "live": live,
        }
    )


def _parse_resource(text: str) -> dict[str, float]:
    name, equals, amount = text.partition("=")
    try:
        return {name.strip(): float(amount if equals else 1)}
    except ValueError:
        raise SpecmdError(f"--resource {text}: write NAME=AMOUNT, as GPU=1") from None


def _executor(kind: str, scheduler: str | None, jobs: int | None) -> DaskCluster | None:
    """Return what was asked for, None for processes here."""
    from specmd.hardware.machine import cores

    if (kind == "dask") != (scheduler is not None):
        raise SpecmdError("--executor dask and --scheduler ADDRESS go together: give both")
    if kind == "local":
        return None
    try:
        from specmd.sweep.cluster import DaskCluster
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("dask", "distributed"):
            raise
        raise SpecmdError(
            f"--executor {kind} needs dask.distributed: pip install 'specmd-bench[dask]'"
        ) from None
    return DaskCluster(scheduler, jobs or cores())


def _parse_shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise SpecmdError(f"--shard {text}: write I/N with I from 1 to N, as in 2/8")
    return int(match[1]), int(match[2])


def _show_plan(jobs: list[Job], live: list[LiveJob], options: Options) -> None:
    """Print what differs between the runs; all of it for programs."""
    from specmd.cli.output import show
    from specmd.report.text import Column, Section, Table, cells

    records = [{"id": job.run_id, "trace": job.trace, **job.config.model_dump()} for job in jobs]
    records += [
        {"id": "live", "trace": job.source.subject, **job.config.model_dump()} for job in live
    ]
    names = ["evict", "capacity_slots"]
    names += [
        name
        for name in (records[0] if records else {})
        if name not in ("id", "capacity", *names) and len({record[name] for record in records}) > 1
    ]
    rows = [cells(record["id"][:12], *(record[name] for name in names)) for record in records]
    columns = [Column("id"), *(Column(name, number=name == "capacity_slots") for name in names)]
    show(options.form, records, Table(columns, [Section(rows)]))
    counted = f"{len(jobs)} runs" + (f" and {len(live)} live runs" if live else "")
    typer.echo(f"specmd: {counted}, none of them started (--dry-run)", err=True)


def _say_estimate(todo: list[Job], written: Experiment, options: Options, jobs: int | None) -> None:
    """Say how long it will take here, and how that is known."""
    from specmd.hardware.machine import cores
    from specmd.sweep.estimate import estimate

    if not todo:
        return
    training = str(written.training) if written.training else None
    workers = jobs or cores()
    found = estimate(todo, written.out, training=training, bounds=written.bounds, workers=workers)
    if not found.accesses:
        typer.echo("specmd: all of them have a result: nothing to do", err=True)
        return
    if found.seconds is None:
        typer.echo(f"specmd: a matter of seconds ({found.basis}), compiling apart", err=True)
        return
    time = f"{found.seconds:.0f} s" if found.seconds < 120 else f"{found.seconds / 60:.0f} min"
    typer.echo(
        f"specmd: about {time} on {workers} processes here ({found.basis})"
        + ("; live runs come on top" if written.models or written.follow else ""),
        err=True,
    )


def _in_order(jobs: list[Job], finished: dict[str, Run], folder: Path) -> list[Run]:
    """Return the runs in the order of the plan: those just made, and those that were there."""
    from specmd.runs.run import kept_run

    found: dict[str, Run] = {}
    for job in jobs:
        run = finished.get(job.run_id) or kept_run(folder, job.run_id)
        if run is not None:
            found[job.run_id] = run
    return list((found | finished).values())


def _conclude(tally: Tally, runs: list[Run], folder: Path) -> int:
    parts = [f"{getattr(tally, name)} {name}" for name in ("done", "existing", "skipped", "failed")]
    typer.echo(f"specmd: {folder}: {', '.join(parts)}", err=True)
    for run in runs:
        if run.status == "failed":
            typer.echo(f"specmd: {run.id[:12]} {run.config.evict}: {run.reason}", err=True)
    if tally.interrupted:
        typer.echo("specmd: interrupted; start it again to go on", err=True)
        return Exit.INTERRUPTED
    if tally.failed:
        typer.echo("specmd: run it again with --rerun failed", err=True)
        return Exit.PARTLY_FAILED if tally.done or tally.existing else Exit.RUN_FAILED
    return Exit.OK
