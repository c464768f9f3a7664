"""`specmd new`: a plug-in to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from specmd.cli import completion


def new(
    kind: Annotated[Literal["policy"], typer.Argument(metavar="KIND", help="What to write.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the policy and its file.")],
    axis: Annotated[
        str,
        typer.Option(metavar="AXIS", help="What it decides.", autocompletion=completion.axes),
    ] = "evict",
    like: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY",
            help="Start from a copy of this built-in policy; default: the simplest of its axis.",
        ),
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compiled", help="In the form that runs at native speed: arrays, no objects."
        ),
    ] = False,
) -> None:
    """Write a working plug-in and its test into the current folder.

    NAME.py holds the policy, test_NAME.py a test that passes; files that exist are left as they
    are.
    """
    from specmd.conformance.template import write_plugin

    written = write_plugin(name, axis, like, Path(), compiled=compiled)  # type: ignore[arg-type]
    typer.echo(f"{written[0]}: {axis} policy; {written[1]}: its test", err=True)
    typer.echo(f"check it: specmd validate policy {written[0]}; pytest {written[1]}", err=True)
    flag = {"evict": "-e", "prefetch": "-p"}.get(axis, f"--{axis}")
    typer.echo(f"use it:   specmd simulate TRACE --plugin {written[0]} {flag} {name}", err=True)
