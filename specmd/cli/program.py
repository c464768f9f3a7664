"""The `specmd` program: its commands, registered; each imports what it needs when it runs."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import typer

from specmd import __version__
from specmd.cli.board import board
from specmd.cli.calibrate import calibrate
from specmd.cli.compare import compare
from specmd.cli.env import env
from specmd.cli.export import export
from specmd.cli.import_ import import_
from specmd.cli.inspect_ import inspect_
from specmd.cli.list_ import list_
from specmd.cli.manual import epilog
from specmd.cli.new import new
from specmd.cli.recommend import recommend
from specmd.cli.record import record
from specmd.cli.report import report
from specmd.cli.run import run
from specmd.cli.selftest import selftest
from specmd.cli.show import show
from specmd.cli.simulate import simulate
from specmd.cli.split import split
from specmd.cli.sweep import sweep
from specmd.cli.train import train
from specmd.cli.validate import validate

# Plain help: rich's panels cost 0.2 s of import, and plain text can be searched and checked.
app = typer.Typer(
    name="specmd",
    help="Which expert cache should I run? Record, simulate and run expert caches of "
    "Mixture-of-Experts models.",
    epilog="Exit codes: 0 ok, 1 a run failed, 2 usage or invalid input, 3 a threshold crossed, "
    "4 a sweep partly failed, 5 a file could not be written, 130 interrupted. SPECMD_DEBUG=1 shows "
    "tracebacks.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"specmd {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


app.command("record")(record)
app.command("import")(import_)
app.command("export")(export)
app.command("split")(split)
app.command("inspect")(inspect_)
app.command("train")(train)
app.command("simulate")(simulate)
app.command("sweep")(sweep)
app.command("recommend")(recommend)
app.command("run")(run)
app.command("compare")(compare)
app.command("calibrate")(calibrate)
app.command("board")(board)
app.command("show")(show)
app.command("report")(report)
app.command("selftest")(selftest)
app.command("list")(list_)
app.command("validate")(validate)
app.command("new")(new)
app.command("env")(env)

for _command in app.registered_commands:
    _command.epilog = epilog(_command.name or "")


@cache
def command() -> Any:
    """Return the program as one command; typer takes a twentieth of a second to make it."""
    return typer.main.get_command(app)
