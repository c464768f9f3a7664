"""`specmd import`: turn another program's recording into a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def import_(
    src: Annotated[Path, typer.Argument(metavar="SRC", help="File to read.")],
    dst: Annotated[Path, typer.Argument(metavar="DST", help="Trace to write (.npz).")],
    experts: Annotated[int, typer.Option(metavar="N", help="Experts of a layer.", min=1)],
    kind: Annotated[
        Literal["topk-npz", "jsonl", "csv"] | None,
        typer.Option(help="Format of SRC; by default told from its suffix."),
    ] = None,
    expert_bytes: Annotated[
        int | None,
        typer.Option(metavar="B", help="Bytes of one expert; needed for capacities in bytes."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the model; finds its shape.")
    ] = None,
    phase: Annotated[
        Literal["decode", "prefill"],
        typer.Option(help="decode: a token is a step; prefill: a request is one step."),
    ] = "decode",
    license_: Annotated[
        str, typer.Option("--license", metavar="TEXT", help="Terms of the recording.")
    ] = "",
    notes: Annotated[str, typer.Option(metavar="TEXT", help="Anything a reader must know.")] = "",
) -> None:
    """Read a recording of expert choices (npz, JSONL, CSV) and write it as a trace.

    \b
    npz, the top-k choices of each token, one of
      expert_ids (T, L, K) or (T, L); seq_start, seq_stop cut it into requests
      selected   (T, L, K) or (T, L); seq (T,) holds each token's request
      decode_ids (S, B, L, K), prefill_ids (T, L, K); --phase chooses
      beside them router_weights, probs or weights; token_ids; prompt_length

    \b
    jsonl, an object a line, for a token in a layer or in all of them
      {"layer": 0, "experts": [3, 1], "weights": [0.7, 0.3]}
      {"experts": [[3, 1], [0, 5]], "weights": [[0.7, 0.3], [0.6, 0.4]]}
      beside them request, step, token, phase, token_id

    \b
    csv, with a header line
      layer,experts[,weights]  a row a token and layer: 0,3 1,0.7 0.3
      layer,expert[,weight]    a row a choice
      layer,expert             and nothing else, header or not: llama.cpp's
    """  # noqa: D301 - \b is click's mark of a paragraph that keeps its lines
    from specmd.hardware.shape import shape_for_model
    from specmd.trace import import_trace, save

    if expert_bytes is None and (shape := shape_for_model(model)) is not None:
        expert_bytes = shape.expert_bytes
        typer.echo(f"expert size taken from shape {shape.name}: {expert_bytes:,} bytes", err=True)
    trace = import_trace(
        src,
        kind,
        num_experts=experts,
        expert_bytes=expert_bytes,
        model=model,
        phase=phase,
        license=license_,
        notes=notes,
    )
    save(trace, dst)
    header = trace.header
    typer.echo(
        f"{dst}: {trace.num_tokens:,} tokens in {trace.num_steps:,} steps of "
        f"{trace.num_requests:,} requests; {header.num_layers} layers x {header.num_experts} "
        f"experts, top-{header.top_k}; digest {trace.digest}",
        err=True,
    )
