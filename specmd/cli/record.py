"""`specmd record`: run prompts through a model and write the routing of every token as a trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from specmd.cli.options import Domain, PromptFile

if TYPE_CHECKING:
    from specmd.trace import Trace


def record(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="tiny (the embedded model), a folder, or a name on the hub."
        ),
    ] = "tiny",
    prompts: PromptFile = "builtin",
    domain: Domain = None,
    max_new_tokens: Annotated[
        int, typer.Option(metavar="N", help="Tokens generated for a prompt.", min=1)
    ] = 64,
    batch: Annotated[int, typer.Option(metavar="B", help="Prompts that run together.", min=1)] = 1,
    logits: Annotated[
        Literal["none", "top", "full"],
        typer.Option(help="Router scores kept: none, those of chosen experts, or all."),
    ] = "top",
    lookahead: Annotated[
        int, typer.Option(metavar="D", help="Depth of the lookahead scores; 0 for none.", min=0)
    ] = 1,
    temperature: Annotated[
        float, typer.Option(metavar="T", help="Of sampling; 0 decodes greedily.", min=0)
    ] = 0.8,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of sampling.")] = 0,
    prefill_chunk: Annotated[
        int | None,
        typer.Option(metavar="N", help="Tokens of a prefill chunk; default all at once.", min=1),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Torch threads; default 1 for tiny, else every core. The number can change a "
            "model's last bits, and with them the text it samples.",
            min=1,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Trace to write; default: name of the model + .npz."),
    ] = None,
    recover: Annotated[
        bool,
        typer.Option("--recover", help="Record nothing: rescue the killed recording of --out."),
    ] = False,
) -> None:
    """Record which experts a model chooses while it generates."""
    from specmd.errors import SpecmdError
    from specmd.recording.generate import default_name

    target = out if out is not None else Path(default_name(Path(model).resolve()))
    if target.is_dir():
        raise SpecmdError(f"{target} is a folder: give --out a file")
    if recover:
        from specmd.recording import recover as rescue

        _say(target, rescue(target))
        return
    _refuse_partial(target)

    import sys

    from specmd.cli.progress import progress
    from specmd.models.load import TINY_NAMES, quiet_hub, refuse_missing, torch_threads
    from specmd.recording import load_model, read_prompts, record_model

    refuse_missing(model)

    texts = read_prompts(prompts, domain)
    quiet_hub(bars=sys.stderr.isatty())
    loaded, tokenizer = load_model(model)
    count = threads or (1 if model in TINY_NAMES else None)
    with torch_threads(count), progress("recording") as report:
        try:
            trace = record_model(
                loaded,
                tokenizer,
                texts,
                max_new_tokens=max_new_tokens,
                batch=batch,
                logits=logits,
                lookahead=lookahead,
                out=target,
                temperature=temperature,
                seed=seed,
                prefill_chunk=prefill_chunk,
                progress=lambda done, total: report(done, total, "prompts"),
            )
        except KeyboardInterrupt:
            if target.is_file():
                typer.echo(f"{target}: what was recorded so far, marked incomplete", err=True)
            raise
    _say(target, trace)


def _refuse_partial(target: Path) -> None:
    """Fail before the model is loaded if an interrupted recording is in the way."""
    from specmd.errors import SpecmdError
    from specmd.recording.columns import partial_folder

    folder = partial_folder(target)
    if folder.exists():
        raise SpecmdError(
            f"{folder}: an interrupted recording is there: rescue it with "
            f"`specmd record --recover --out {target}`, or delete the folder"
        )


def _say(target: Path, trace: Trace) -> None:
    header = trace.header
    typer.echo(
        f"{target}: {trace.num_tokens:,} tokens in {trace.num_steps:,} steps of "
        f"{trace.num_requests:,} requests; {header.num_layers} layers x {header.num_experts} "
        f"experts, top-{header.top_k}; {'' if header.complete else 'incomplete; '}"
        f"digest {trace.digest}",
        err=True,
    )
