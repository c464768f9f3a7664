"""`specmd compare`: what differs between runs: of two commits, machines, devices, profiles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from specmd.cli import completion
from specmd.cli.options import AGAIN
from specmd.errors import Exit

if TYPE_CHECKING:
    from specmd.comparison.comparing import Comparison
    from specmd.report.text import Table

_MOST = 10


def compare(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="BASELINE OTHER...", help="Folders of runs, or run files; one, with --by."
        ),
    ],
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD",
            help="Side by side, a column for every value of it: profile, device, policy, commit, "
            f"source, or any option or fact of a run.{AGAIN}",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"Metrics to show (see `specmd list metrics`); tpot is tpot_s.{AGAIN}",
            autocompletion=completion.metrics,
        ),
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC:AMOUNT",
            help="Exit with 3 where it is worse than the baseline by more: tpot:5%, ttft:0.2ms, "
            f"hit_rate:1pp (points), misses:100.{AGAIN}",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show what did not change, too.")
    ] = False,
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway",
            help="Compare runs of other contracts or traces, and measured with simulated ones.",
        ),
    ] = False,
    plugin: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help=f"Python file or folder with more policies.{AGAIN}"),
    ] = None,
    form: Annotated[
        Literal["table", "md", "csv", "json", "jsonl"],
        typer.Option("--format", help="What to print on stdout."),
    ] = "table",
    exports: Annotated[
        list[Path] | None,
        typer.Option(
            "--export",
            metavar="FILE",
            help=f"Write it, too: .txt, .md, .csv, .json or .jsonl.{AGAIN}",
        ),
    ] = None,
) -> int:
    """Compare runs: two commits, machines, devices or policies.

    Runs whose inputs agree, but for what all runs of a folder have in common, are pairs; what found
    no partner is said. `--by profile` says whether the ranking of policies changes, and where.
    Repetitions of measured runs, or requests, say how sure a difference is; what is within noise
    passes `--fail-on`.
    """
    from specmd.cli.output import export, export_format, show
    from specmd.comparison import compare as compare_runs
    from specmd.comparison.comparing import chosen
    from specmd.comparison.tables import shown_metrics
    from specmd.policy.registry import add_plugin

    for path in exports or []:
        export_format(path)
    asked = chosen(metric or [])
    for path in plugin or []:
        add_plugin(path)
    found = compare_runs(*results, by=by or (), fail_on=fail_on or (), anyway=anyway)
    found.crossed()
    metrics = shown_metrics(found, asked)
    table, ranking, rows, flat = _laid_out(found, metrics, everything=everything)
    for path in exports or []:
        export(path, rows, table, flat)
    show(form, rows, table, flat)
    if ranking is not None and form in ("table", "md"):
        typer.echo()
        show(form, rows, ranking)
    if form not in ("table", "md"):
        for note in [*table.notes, *(ranking.notes if ranking else ())]:
            typer.echo(f"specmd: {note}", err=True)
    return _judge(found)


def _laid_out(
    found: Comparison, metrics: list[str], *, everything: bool
) -> tuple[Table, Table | None, list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the table, that of winners if there is one, and records: all, and those of lines."""
    from specmd.comparison import sides, tables

    if not found.matched.by:
        rows = tables.records(found, metrics, everything=everything)
        return tables.difference_table(found, metrics, everything=everything), None, rows, rows
    rows = sides.side_records(found, metrics, everything=everything)
    table = sides.side_table(found, metrics, everything=everything)
    ranks = sides.ranked(found, metrics)
    if ranks is None:
        return table, None, rows, rows
    winners = sides.ranking_records(found, *ranks)
    return table, sides.ranking_table(found, *ranks), rows + winners, rows


def _judge(found: Comparison) -> int:
    """Say what is past a threshold; returns the exit code."""
    from specmd.comparison.tables import crossing

    crossed = [crossing(found, limit, each) for limit, each in found.crossed()]
    for text in crossed[:_MOST]:
        typer.echo(f"specmd: {text}", err=True)
    if len(crossed) > _MOST:
        typer.echo(f"specmd: and {len(crossed) - _MOST} more past a threshold", err=True)
    return Exit.THRESHOLD if crossed else Exit.OK
