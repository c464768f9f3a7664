"""`specmd export`: write a trace as other programs do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="Trace to read (.npz).")],
    dst: Annotated[Path, typer.Argument(metavar="DST", help="File to write.")],
    form: Annotated[
        Literal["csv", "jsonl", "llama-cpp", "npy", "warp"],
        typer.Option("--format", help="Form of DST; see `specmd import --help`."),
    ] = "csv",
) -> None:
    """Write a trace in one of the forms that `specmd import` reads.

    csv and jsonl hold all but logits and lookahead; llama-cpp the ids by pass; npy (ids) and
    warp one request without its phases.
    """
    from specmd.trace import load
    from specmd.trace.export import export_trace

    loaded = load(trace)
    export_trace(loaded, dst, form)
    typer.echo(f"{dst}: {loaded.num_tokens:,} tokens as {form}", err=True)
