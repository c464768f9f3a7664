"""`specmd simulate`: run a grid of caches over traces, here and now, and print a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specmd.cli.options import AGAIN, TRACES, Options, takes_options
from specmd.errors import Exit, SpecmdError

if TYPE_CHECKING:
    from specmd.runs.options import RunConfig
    from specmd.runs.run import Run
    from specmd.trace import Trace


@takes_options()
def simulate(
    traces: Annotated[list[Path] | None, TRACES] = None,
    validate: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            help="Compare with runs that `specmd run --out` measured: files or folders; takes "
            f"their traces and options, and the --profile of their machine.{AGAIN}",
        ),
    ] = None,
    timeline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a few steps of one run as a timeline for ui.perfetto.dev.",
        ),
    ] = None,
    *,
    options: Options,
) -> int:
    """Simulate caches over a trace: hit rates, bounds, and times.

    Times need the --profile of a device; without one there is no clock.

    Several values of an option make a grid, whose runs come one after another; see `specmd sweep`
    for large ones.
    """
    from specmd.cli.progress import progress
    from specmd.cli.requests import deliver, grid_of, prepare
    from specmd.report.names import policy_name
    from specmd.simulation.simulate import try_config
    from specmd.trace import load

    if validate:
        from specmd.cli.predictions import validate_runs

        if traces:
            raise SpecmdError("--validate brings its own traces: leave TRACE out")
        return validate_runs(validate, options)
    if not traces:
        raise SpecmdError("name a trace, or runs to --validate")
    prepare(options)
    grid = grid_of(options)
    training = load(options.training) if options.training else None
    loaded = [(path, load(path)) for path in traces]
    todo = [
        (path, trace, config)
        for path, trace in loaded
        for config in grid.expand(trace, training=training)
    ]
    if timeline is not None and len(todo) > 1:
        raise SpecmdError(f"--timeline is of one run, and these are {len(todo)}")
    if timeline is not None and todo[0][-1].profile is None:
        raise SpecmdError("--timeline needs a clock: give --profile")
    most_slots = max(config.capacity_slots for *_, config in todo)
    runs: list[Run] = []
    interrupted = False
    with progress("simulating") as report:
        try:
            for number, (path, trace, config) in enumerate(todo):
                report(number, len(todo), f"{config.evict} at {config.capacity}")
                runs.append(
                    try_config(
                        trace,
                        config,
                        name=path.stem,
                        training=training,
                        bounds=not options.no_bounds,
                        most_slots=most_slots,
                    )
                )
        except KeyboardInterrupt:
            if not runs:
                raise
            interrupted = True
    deliver(runs, options)
    if timeline is not None and runs[0].status == "ok":
        _write_timeline(timeline, *todo[0][1:], training)
    if interrupted:
        typer.echo(f"specmd: interrupted after {len(runs)} of {len(todo)} runs", err=True)
        return Exit.INTERRUPTED
    failed = [run for run in runs if run.status == "failed"]
    for run in failed:
        typer.echo(f"specmd: {policy_name(run)} failed: {run.reason}", err=True)
    return Exit.RUN_FAILED if failed else Exit.OK


def _write_timeline(file: Path, trace: Trace, config: RunConfig, training: Trace | None) -> None:
    from specmd.simulation.spans import STEPS, step_spans

    found = step_spans(trace, config, training)
    found.timeline.write(file)
    typer.echo(
        f"{file}: step {found.step} ({found.seconds * 1e3:.3g} ms, simulated) and {STEPS - 1} more",
        err=True,
    )
