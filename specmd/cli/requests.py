"""From options to a grid and from runs to the outputs that were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from specmd.cli.options import Options
    from specmd.runs.resolve import Grid
    from specmd.runs.run import Run

_NOT_GRID = ("training", "no_bounds", "plugin", "metric", "form", "exports", "figures")


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
    for name in options.metric or []:
        metric(name)
    for path in options.plugin or []:
        add_plugin(path)


def grid_of(options: Options, below: Mapping[str, Any] | None = None) -> Grid:
    """Build the grid of the options, on top of what a configuration file says."""
    from specmd.runs.resolve import make_grid

    given = {
        name: value
        for name, value in vars(options).items()
        if name not in _NOT_GRID and value not in (None, [], False)
    }
    return make_grid({**(below or {}), **given})


def deliver(runs: Sequence[Run], options: Options) -> None:
    """Write files and figures, then print; files come first, for stdout may be closed early."""
    from specmd.cli.output import export, show
    from specmd.report.table import run_table

    records = [run.model_dump(mode="json", by_alias=True) for run in runs]
    flat = [run.row() for run in runs]
    table = run_table(runs, options.metric or ())
    for path in options.exports or []:
        export(path, records, table, flat)
    if options.figures:
        from specmd.report.figures import draw

        for path in options.figures:
            for text in draw(runs, Path(path)):
                typer.echo(f"specmd: {path}: left out: {text}", err=True)
    show(options.form, records, table, flat)
