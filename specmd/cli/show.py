"""`specmd show`: the tables and figures of a results folder again, without its command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specmd.cli.options import OUTPUT, Options, takes_options
from specmd.errors import SpecmdError

if TYPE_CHECKING:
    from specmd.runs.run import Run


@takes_options(only=OUTPUT)
def show(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULTS", help="Folders of runs, or run files.")
    ],
    *,
    options: Options,
) -> int:
    """Show results again, those of several folders as one table.

    RESULTS are what `sweep --out` and `run --out` wrote.
    """
    from specmd.cli.requests import deliver, prepare

    prepare(options)
    deliver(read_results(results), options)
    return 0


def read_results(results: list[Path]) -> list[Run]:
    """Read the runs of folders and files, each once, in the order of tables."""
    from specmd.cli.requests import place
    from specmd.runs.run import read_run, read_runs

    found: dict[str, Run] = {}
    for path in results:
        for run in read_runs(path) if path.is_dir() else [read_run(path)]:
            found.setdefault(run.id, run)
    if not found:
        raise SpecmdError(f"{results[0]}: holds no runs: it takes what `specmd sweep --out` wrote")
    return sorted(found.values(), key=place)
