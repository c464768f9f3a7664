"""`specmd recommend`: which composition of policies to run on which device, on one screen."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from specmd.cli import completion
from specmd.cli.options import AGAIN
from specmd.errors import Exit, SpecmdError

if TYPE_CHECKING:
    from specmd.advice.answer import Answer
    from specmd.advice.live import Measured
    from specmd.advice.trials import Report
    from specmd.report.text import Table


def recommend(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="Trace file.")],
    memory: Annotated[
        str,
        typer.Option(metavar="SIZE", help="What the device gives to all of it, as 8GB; or free."),
    ],
    profile: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help=f"Hardware profile, or a .toml file: a column each.{AGAIN}",
            autocompletion=completion.profiles,
        ),
    ],
    objective: Annotated[
        Literal["tpot", "ttft", "total"],
        typer.Option("--for", help="What is to be short: time per token, to the first, or all."),
    ] = "tpot",
    quality: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Admit lossy policies that keep this share of the router's weight.",
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            metavar="TOKENS",
            min=1,
            help="Tokens whose keys and values the device holds; default most of the trace.",
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="B", min=1, help="Recorded requests in flight together.")
    ] = None,
    prefill_chunk: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Most tokens of a prefill step.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the first N tokens of the trace.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Whose software is assumed: eager, grouped or graph."),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Model shape, or a .toml file; default that of the trace's model.",
            autocompletion=completion.shapes,
        ),
    ] = None,
    training: Annotated[
        Path | None,
        typer.Option(metavar="TRACE", help="Trace that policies fitted beforehand are fitted on."),
    ] = None,
    plugin: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help=f"Python file or folder with more policies.{AGAIN}"),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the bootstrap, and of policies.")] = 0,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Processes; by default one a core.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the time against memory: .png, .svg or .pdf."),
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Only what can run live; then run the best three on this machine."
        ),
    ] = False,
    live_layers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="With --live: the first N MoE layers.")
    ] = None,
    live_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="With --live: the first N tokens; default 64."),
    ] = None,
    throttle: Annotated[
        str | None,
        typer.Option(metavar="RATE", help="With --live: pace of the link, see `specmd run`."),
    ] = None,
    form: Annotated[
        Literal["table", "md", "csv", "json"],
        typer.Option("--format", help="What to print on stdout."),
    ] = "table",
    exports: Annotated[
        list[Path] | None,
        typer.Option("--export", metavar="FILE", help=f"Write it, too: by suffix.{AGAIN}"),
    ] = None,
) -> int:
    """Say which cache to run, and what would buy more.

    Searches eviction, scope, allocation, prefetch, schedule and miss handling, simulated on each
    profile with --memory for everything: slots, other weights, keys and values. Policies that know
    the future are bounds, not candidates; lossy ones compete under a --quality only.
    """
    from specmd.advice import screen
    from specmd.advice.answer import recommend as search
    from specmd.advice.question import Question
    from specmd.cli.output import export, export_format, show

    for path in exports or []:
        export_format(path)
    if plot is not None:
        from specmd.report.figures import figure_format

        figure_format(plot)
        if memory == "free":
            raise SpecmdError("--plot is of memories around one: give --memory in bytes")
    if not live and (live_layers or live_tokens or throttle):
        raise SpecmdError("--live-layers, --live-tokens and --throttle are of --live: give it, too")
    given = {
        "context": context,
        "batch": batch,
        "prefill_chunk": prefill_chunk,
        "tokens": tokens,
        "engine": engine,
        "shape": shape,
    }
    question = Question(
        memory,
        tuple(dict.fromkeys(profile)),
        objective,
        quality,
        {name: value for name, value in given.items() if value is not None},
        seed,
        live,
    )
    with _told() as report:
        answer = search(
            trace,
            question,
            training=training,
            plugins=plugin or (),
            workers=jobs,
            curves=plot is not None,
            report=report,
        )
        measured: list[Measured] = []
        if live:
            from specmd.advice.live import measure

            measured = measure(
                answer,
                trace,
                layers=live_layers,
                tokens=live_tokens,
                throttle=throttle,
                training=training,
                plugins=plugin or (),
                report=report,
            )
    table, records = screen.answer_table(answer), screen.records(answer, str(trace), measured)
    writes = [partial(export, path, records, table, screen.flat(records)) for path in exports or []]
    if plot is not None:
        from specmd.advice.plot import draw

        label = screen.NAMES[objective]
        writes.append(partial(draw, answer.curves, screen.headline(answer), label, plot))
    failures = []  # what cannot be written costs no answer
    for write in writes:
        try:
            write()
        except SpecmdError as error:
            failures.append(error)
    if form == "table":
        _print(answer, table, str(trace))
    else:
        show(form, records, table, screen.flat(records))
    if measured and form in ("table", "md"):
        typer.echo("")
        show(form, (), screen.live_table(answer, measured))
    if failures:
        raise failures[0]
    return Exit.OK


def _print(answer: Answer, table: Table, trace: str) -> None:
    """Print one screen: what is best, the table, the commands, and what was left out."""
    from dataclasses import replace

    from specmd.advice import screen
    from specmd.advice.commands import commands
    from specmd.cli.output import show

    for line in (screen.headline(answer), *screen.winners(answer)):
        typer.echo(textwrap.fill(line, 80, subsequent_indent="    "))
    if answer.all_fits:
        typer.echo("Every expert fits: no cache is needed, whatever the policy.")
    typer.echo("")
    show("table", (), replace(table, title="", notes=()))
    for line in screen.others(answer):
        typer.echo(textwrap.fill(line, 80, subsequent_indent="    "))
    typer.echo("")
    for line in commands(answer, trace):
        typer.echo(f"  {line}")
    for note in screen.notes(answer):
        typer.echo(textwrap.fill(note, 80, subsequent_indent="  "))


@contextmanager
def _told() -> Iterator[Report]:
    """Yield what says on stderr what is waited for: a bar, or a line a stage without a terminal."""
    from specmd.cli.progress import progress

    began = time.monotonic()
    said = ""
    with progress("recommending") as bar:

        def report(what: str, done: int, total: int) -> None:
            nonlocal said
            bar(done, total, what)
            if what != said and not sys.stderr.isatty():
                typer.echo(f"specmd: {time.monotonic() - began:4.0f} s: {what}", err=True)
            said = what

        yield report
