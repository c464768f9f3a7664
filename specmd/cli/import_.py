"""`specmd import`: turn another program's recording into a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from specmd.errors import SpecmdError


def import_(
    src: Annotated[Path, typer.Argument(metavar="SRC", help="File to read.")],
    dst: Annotated[Path, typer.Argument(metavar="DST", help="Trace to write (.npz).")],
    experts: Annotated[
        int | None,
        typer.Option(metavar="N", help="Experts of a layer, where SRC does not say.", min=1),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Form of SRC, see above; by default told by content."),
    ] = None,
    expert_bytes: Annotated[
        str | None,
        typer.Option(
            metavar="SIZES",
            help="Bytes of one expert, 2.7MB; where layers differ, of each: 2654208x8,3.1MBx40.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the model; finds its shape.")
    ] = None,
    phase: Annotated[
        Literal["decode", "prefill"],
        typer.Option(help="decode: a token is a step; prefill: a request is one step."),
    ] = "decode",
    top_k: Annotated[
        int | None, typer.Option(metavar="K", help="Experts of a token, for SGLang's arrays.")
    ] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="Rows that are the prompt's, for vLLM's arrays.")
    ] = None,
    license_: Annotated[
        str, typer.Option("--license", metavar="TEXT", help="Terms of the recording.")
    ] = "",
    notes: Annotated[str, typer.Option(metavar="TEXT", help="Anything a reader must know.")] = "",
) -> None:
    """Read a recording of expert choices and write it as a trace.

    The form is told by the content. Rows of fewer experts, and layers that not all tokens of a
    prompt reach, are kept as they are.

    \b
    topk-npz   npz with one of
                 expert_ids (T, L, K) or (T, L); seq_start, seq_stop: requests
                 selected   (T, L, K) or (T, L); seq (T,): request of a token
                 decode_ids (S, B, L, K), prefill_ids (T, L, K): --phase
               beside them router_weights, probs or weights; token_ids;
               prompt_length
    multi-hot  npz with ones for the experts used, (T, L, E): nodes and probs
               of FineMoE, trace_collection of MoE-Infinity
    npy        ids (T, L, K), as vLLM returns them; --prompt-tokens
    response   JSON of vLLM (routed_experts, prompt_routed_experts) or of
               SGLang (--top-k)
    jsonl      an object a line, for a token in a layer or in all of them:
                 {"layer": 0, "experts": [3, 1], "weights": [0.7, 0.3]}
                 {"experts": [[3, 1], [0, 5]], "weights": [[0.7, 0.3], ...]}
               beside them request, step, token, phase, token_id; also as
               vLLM layer logs, lattice and warp name these
    ik-llama   NDJSON of ik_llama.cpp's moe_routing_trace
    big-moe    BigMoeOnEdge's route trace, with the bytes of an expert by layer
    llama-cpp  CSV of layer,expert and nothing else, header line or not
    csv        CSV with a header line:
                 layer,experts[,weights]  a row a token and layer: 0,3 1,0.7 0.3
                 layer,expert[,weight]    a row a choice
    parquet    the columns of csv; needs pyarrow
    """  # noqa: D301 - \b is click's mark of a paragraph that keeps its lines
    from specmd.hardware.shape import shape_for_model
    from specmd.trace import import_trace, save

    sizes = None if expert_bytes is None else _sizes(expert_bytes)
    if sizes is None and (shape := shape_for_model(model)) is not None:
        sizes, top_k = [shape.expert_bytes], top_k or shape.top_k
        typer.echo(f"expert size taken from shape {shape.name}: {sizes[0]:,} bytes", err=True)
    trace = import_trace(
        src,
        kind,
        num_experts=experts,
        expert_bytes=sizes,
        model=model,
        phase=phase,
        top_k=top_k,
        prompt_tokens=prompt_tokens,
        license=license_,
        notes=notes,
    )
    save(trace, dst)
    header = trace.header
    if header.ragged:
        typer.echo(header.notes.rpartition("; ")[2], err=True)
    typer.echo(
        f"{dst}: {trace.num_tokens:,} tokens in {trace.num_steps:,} steps of "
        f"{trace.num_requests:,} requests; {header.num_layers} layers x {header.num_experts} "
        f"experts, top-{header.top_k}; digest {trace.digest}",
        err=True,
    )


def _sizes(text: str) -> list[int]:
    """Read one size, or sizes by layer: `A,B`, and `AxN` for N layers one after another."""
    from specmd.runs.options import parse_bytes

    sizes: list[int] = []
    for part in text.split(","):
        size, times, layers = part.lower().partition("x")
        if times and not (layers.strip().isdecimal() and 0 < int(layers) <= 10_000):
            raise SpecmdError(f"--expert-bytes: '{part}': write 2.7MBx8 for 8 layers of that size")
        sizes += [parse_bytes(size)] * (int(layers) if times else 1)
    return sizes
