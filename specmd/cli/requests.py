"""From options to a grid and from runs to the outputs that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from specmd.errors import SpecmdError

if TYPE_CHECKING:
    from specmd.cli.options import Options
    from specmd.runs.resolve import Grid
    from specmd.runs.run import Run


def prepare(options: Options) -> None:
    """Fail on what can be seen to be wrong before anything is computed, and load plug-ins."""
    from specmd.cli.output import export_format
    from specmd.policy.registry import add_plugin
    from specmd.runs.metrics import metric

    for path in options.exports or []:
        export_format(path)
    if options.figures:
        from specmd.report.figures import figure_format

        for path in options.figures:
            figure_format(path)
    for name in [*(options.metric or []), *filter(None, [options.rank])]:
        if "." not in name:  # one of a policy's own is known to the runs only
            metric(name)
    for path in options.plugin or []:
        add_plugin(path)


def grid_of(options: Options, below: Mapping[str, Any] | None = None) -> Grid:
    """Build the grid of the options, on top of what a configuration file says."""
    from specmd.runs.resolve import make_grid

    grid = make_grid({**(below or {}), **options.run})
    _say_checked(grid)
    return grid


def _say_checked(grid: Grid) -> None:
    """Say which policies run slower than they could: compiled plug-ins that nobody has checked."""
    from specmd.core.clearance import foreign_files, is_cleared
    from specmd.policy.registry import Axis, choose

    axes: tuple[Axis, ...] = ("evict", "prefetch")
    chosen = {choose(axis, spelled).entry for axis in axes for spelled in getattr(grid, axis)}
    for entry in sorted(chosen, key=lambda entry: entry.name):
        if entry.compiled and not is_cleared(entry.cls):
            file = entry.name if "entry point" in entry.origin else foreign_files(entry.cls)[0]
            typer.echo(
                f"specmd: {entry.name} runs bounds-checked, which is slower: "
                f"`specmd validate policy {file}` makes it quick",
                err=True,
            )


def place(run: Run) -> tuple[str, str, int, str, str, str, str]:
    """Say where a run stands among others: by trace, kind, capacity, policies, profile, options."""
    config = run.config
    profile = config.profile or ""
    own = (config.capacity_slots, config.evict, config.prefetch, profile)
    return run.trace.name, run.label.partition(" (")[0], *own, config.model_dump_json() + run.id


def deliver(runs: Sequence[Run], options: Options) -> None:
    """Write files and figures, then print; files come first, for stdout may be closed early.

    Files of rows are sorted, so that those of the same runs are equal whatever made them.
    What cannot be written costs neither the other files nor the table: it is the error at the end.
    """
    from specmd.cli.output import export, show
    from specmd.report.table import run_table

    records = [run.model_dump(mode="json", by_alias=True) for run in runs]
    flat = [run.row() for run in runs]
    order = sorted(range(len(runs)), key=lambda number: place(runs[number]))
    sorted_records, sorted_flat = ([rows[i] for i in order] for rows in (records, flat))
    table = run_table(runs, options.metric or (), options.rank, verbose=options.verbose)
    writes: list[tuple[Path, Callable[[], list[str] | None]]] = [
        (path, partial(export, path, sorted_records, table, sorted_flat))
        for path in options.exports or []
    ]
    if options.figures:
        from specmd.report.figures import draw

        writes += [(path, partial(draw, runs, path)) for path in options.figures]
    failures = []
    for path, write in writes:
        try:
            for text in write() or ():
                typer.echo(f"specmd: {path}: left out: {text}", err=True)
        except SpecmdError as error:
            failures.append(error)
    show(options.form, records, table, flat)
    if failures:
        raise failures[0]
