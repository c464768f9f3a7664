"""`specmd report`: runs as a page to share, and its figures as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specmd.cli.show import read_results
from specmd.errors import SpecmdError


def report(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULTS", help="Folders of runs, or run files.")
    ],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Page to write.")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write every figure as PNG, SVG and PDF."),
    ] = None,
    title: Annotated[str, typer.Option(metavar="TEXT", help="Title of the page.")] = "",
    plugin: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="Python file or folder with more policies. [repeatable]"),
    ] = None,
) -> None:
    """Make one offline page of runs: answers, figures, tables.

    It takes what `sweep --out` and `run --out` wrote, of several traces and devices, simulated and
    measured. Needs the extra 'report'.
    """
    from specmd.policy.registry import add_plugin
    from specmd.report.html.files import write_figures
    from specmd.report.html.page import require_library, write_page

    if html is None and figures is None:
        raise SpecmdError("nothing to write: give --html FILE, --figures DIR, or both")
    require_library()
    for path in plugin or []:
        add_plugin(path)
    runs = read_results(results)
    if html is not None:
        write_page(runs, html, title)
        typer.echo(f"specmd: {html}: {len(runs):,} runs", err=True)
    if figures is not None:
        count, left_out = write_figures(runs, figures)
        typer.echo(f"specmd: {figures}: {count} files", err=True)
        for text in left_out:
            typer.echo(f"specmd: {figures}: not of all: {text}", err=True)
