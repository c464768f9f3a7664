"""`specmd export`: write a trace as other programs do."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Annotated, Literal

import typer

from specmd.cli import completion


def export(
    trace: Annotated[
        Path,
        typer.Argument(
            metavar="TRACE", help="Trace to read (.npz).", autocompletion=completion.traces
        ),
    ],
    dst: Annotated[Path, typer.Argument(metavar="DST", help="File to write.")],
    form: Annotated[
        Literal["csv", "jsonl", "llama-cpp", "npy", "warp"],
        typer.Option("--format", help="Form of DST; see `specmd import --help`."),
    ] = "csv",
) -> None:
    """Write a trace in one of the forms that `specmd import` reads.

    csv and jsonl hold all but logits and lookahead; llama-cpp the ids by pass; npy (ids) and
    warp one request without its phases. Of the header, jsonl holds what a simulation needs; what
    the others cannot hold is printed as options of `specmd import`.
    """
    from specmd.trace import load
    from specmd.trace.export import export_trace

    loaded = load(trace)
    export_trace(loaded, dst, form)
    typer.echo(f"{dst}: {loaded.num_tokens:,} tokens as {form}", err=True)
    if form != "jsonl":
        header = loaded.header
        words = ["--experts", str(header.num_experts)]
        if sizes := header.expert_bytes_by_layer:
            runs = [(size, len(list(run))) for size, run in groupby(sizes)]
            words += ["--expert-bytes", ",".join(f"{size}x{layers}" for size, layers in runs)]
        elif header.expert_bytes is not None:
            words += ["--expert-bytes", str(header.expert_bytes)]
        typer.echo(f"to read it back: specmd import {dst} TRACE {' '.join(words)}", err=True)
