"""`specmd split`: one recording as two, to learn from and to judge on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specmd.cli import completion


def split(
    trace: Annotated[
        Path,
        typer.Argument(
            metavar="TRACE", help="Trace to read (.npz).", autocompletion=completion.traces
        ),
    ],
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="File to write: to learn from.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="File to write: the others.")],
    share: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of the requests that goes to FIRST.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of which go where.")] = 0,
) -> None:
    """Divide a recording by its requests: to learn from and to judge on.

    Requests that share 32 tokens in a row stay together. A recording of one request is cut in time.
    """
    from specmd.trace import load, save
    from specmd.trace.overlap import split as divide

    for path, part in zip((first, second), divide(load(trace), share, seed), strict=True):
        save(part, path)
        typer.echo(f"{path}: {part.num_requests:,} requests, {part.num_tokens:,} tokens", err=True)
