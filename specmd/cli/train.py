"""`specmd train`: learn on one trace what policies decide by on another."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from specmd.cli import completion


def train(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="POLICY", help="Policy that is to decide by it: learned_linear, ..."
        ),
    ],
    trace: Annotated[
        Path,
        typer.Argument(
            metavar="TRACE", help="Trace to learn from.", autocompletion=completion.traces
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="File to write.")],
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of what is drawn.")] = 0,
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Passes over the samples; default: the kind's own."),
    ] = None,
    hold_out: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=0.9,
            help="Requests not learned from, the loss on them said.",
        ),
    ] = 0.1,
    shuffled: Annotated[
        bool, typer.Option("--shuffled", help="Learn shuffled labels: the control.")
    ] = False,
) -> None:
    """Learn on a trace what a policy decides by on another.

    FILE (safetensors) goes to the policy as POLICY:model=FILE. It says what it was learned from: a
    trace that has requests in common with that is refused. `specmd split` makes two of one.
    """
    from specmd.trace import load
    from specmd.training.training import train as fit

    began = time.perf_counter()
    made = fit(
        kind, load(trace), out, seed=seed, epochs=epochs, hold_out=hold_out, shuffled=shuffled
    )
    held = "" if made.held_out_loss is None else f", {made.held_out_loss:.4g} on requests held out"
    typer.echo(
        f"{out}: {made.kind} of {made.training_tokens:,} tokens, {made.labels} labels, seed "
        f"{made.seed}: loss {made.loss[-1]:.4g}{held} ({time.perf_counter() - began:.1f} s)",
        err=True,
    )
