"""Traces from other programs' files.

`import_trace` recognises the form by its content, reads it, and checks everything that a cache
simulator will later take for granted. What a foreign file does not say (the number of experts, the
size of one, the model) is asked for, because a guess would show up as a wrong result far from here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

from specmd.errors import SpecmdError, unknown
from specmd.trace.header import MAX_EXPERTS, SCHEMA
from specmd.trace.hub import located
from specmd.trace.trace import Trace

if TYPE_CHECKING:
    from specmd.trace.importers.source import Source


class Form(NamedTuple):
    """A form of recording: how to tell it, and the function `module.reader` that reads it."""

    kind: str
    says: str
    module: str
    reader: str
    matches: Callable[[Source], bool]


def _is_csv(source: Source) -> bool:
    names = {name.strip().lower() for name in source.head.split(",")}
    return len(names) > 1 and not names.isdisjoint(("layer", "expert", "experts"))


def _is_llama_cpp(source: Source) -> bool:
    cells = [cell.strip() for cell in source.head.lower().split(",")]
    return len(cells) == 2 and (cells == ["layer", "expert"] or all(map(str.isdecimal, cells)))


def _has(source: Source, *keys: str) -> bool:
    return any(key in source.first for key in keys)


def _is_response(source: Source) -> bool:
    places = [source.first, source.first.get("meta_info")]
    for key in ("choices", "outputs"):
        listed = source.first.get(key)
        places += listed if isinstance(listed, list) else []
    keys = ("routed_experts", "prompt_routed_experts", "sgl_ext", "meta_info")
    return any(key in place for place in places if isinstance(place, dict) for key in keys)


def _is_npz(source: Source, *arrays: str) -> bool:
    from specmd.trace.npz import open_archive

    if not source.magic.startswith(b"PK"):
        return False
    with open_archive(source.path) as archive:
        return any(name in archive.members for name in arrays)


def _is_text(source: Source) -> bool:
    return not source.magic.startswith((b"PK", b"\x93NUMPY", b"PAR1"))


_ROWS = ("experts", "expert_ids", "topk_ids", "selected_ids", "layers", "layer", "layers_logged")
_CHOICES = ("expert_ids", "selected", "decode_ids", "prefill_ids")

FORMS = (
    Form(
        "topk-npz",
        "npz with expert_ids, selected, decode_ids or prefill_ids",
        "top_k_npz",
        "read_topk_npz",
        lambda source: _is_npz(source, *_CHOICES),
    ),
    Form(
        "multi-hot",
        "npz with nodes (FineMoE) or trace_collection (MoE-Infinity)",
        "multi_hot",
        "read_multi_hot",
        lambda source: _is_npz(source, "nodes", "trace_collection"),
    ),
    Form(
        "npy",
        "npy of ids (tokens, layers, k), as vLLM returns",
        "responses",
        "read_npy",
        lambda source: source.magic.startswith(b"\x93NUMPY"),
    ),
    Form(
        "parquet",
        "parquet with the columns of csv",
        "csv_rows",
        "read_parquet",
        lambda source: source.magic.startswith(b"PAR1"),
    ),
    Form(
        "ik-llama",
        "ik_llama.cpp's moe_routing_trace",
        "ik_llama",
        "read_ik_llama",
        lambda source: source.first.get("schema") == "ik_llama.moe_routing_trace",
    ),
    Form(
        "response",
        "JSON of vLLM or SGLang with routed_experts",
        "responses",
        "read_responses",
        _is_response,
    ),
    Form(
        "jsonl",
        "JSON lines with experts (also vLLM layer logs, lattice, warp)",
        "json_rows",
        "read_json_rows",
        lambda source: _has(source, *_ROWS) or source.first.get("schema") == SCHEMA,
    ),
    Form(
        "big-moe",
        "BigMoeOnEdge's route trace",
        "big_moe",
        "read_big_moe",
        lambda source: source.head.startswith("# route_trace v1"),
    ),
    Form(
        "llama-cpp",
        "CSV of layer,expert and nothing else (llama.cpp)",
        "llama_cpp",
        "read_llama_cpp",
        _is_llama_cpp,
    ),
    Form(
        "csv",
        "CSV with a header line that names layer and expert or experts",
        "csv_rows",
        "read_csv",
        _is_csv,
    ),
)
KINDS = tuple(form.kind for form in FORMS)
PHASES = ("decode", "prefill")


def import_trace(
    src: str | PathLike[str],
    kind: str | None = None,
    *,
    num_experts: int | None = None,
    expert_bytes: int | Sequence[int] | None = None,
    model: str | None = None,
    phase: str = "decode",
    top_k: int | None = None,
    prompt_tokens: int | None = None,
    shape: dict[str, Any] | None = None,
    license: str = "",
    notes: str = "",
) -> Trace:
    """Read a foreign recording of expert choices.

    Args:
        src: the file; also one on the hub, see `specmd.trace.hub`.
        kind: one of `FORMS`, each described in its module; by default told from the content.
        num_experts: experts E of a layer; needed where the file does not say.
        expert_bytes: size of one expert in bytes, if known; one for each layer where they differ.
        model: the model's name, if known.
        phase: ``decode`` (every token is a step) or ``prefill`` (every request is one step), where
            the file itself does not say.
        top_k: experts of a token, for flat arrays (SGLang).
        prompt_tokens: how many rows are the prompt's, for arrays that do not say (vLLM's).
        shape: facts of the model's shape for the header.
        license: terms of the recording for the header.
        notes: anything else for the header.

    Returns:
        A checked trace of kind ``imported``; its notes say so if it is ragged.

    Raises:
        SpecmdError: one line naming the file and what is wrong with it.

    """
    from specmd.trace.importers.source import Source, naming

    path = located(src)
    if kind is not None and kind not in KINDS:
        raise unknown("import kind", kind, KINDS)
    if phase not in PHASES:
        raise unknown("phase", phase, PHASES)
    if num_experts is not None and not 1 <= num_experts <= MAX_EXPERTS:
        raise SpecmdError(f"--experts {num_experts}: give a number from 1 to {MAX_EXPERTS}")
    given = [] if expert_bytes is None else expert_bytes
    sizes = [given] if isinstance(given, int) else list(given)
    for option, number in (
        *(("--expert-bytes", size) for size in sizes),
        ("--top-k", top_k),
        ("--prompt-tokens", prompt_tokens),
    ):
        if number is not None and number < 1:
            raise SpecmdError(f"{option} {number}: give a positive number")
    source = Source(path, phase, num_experts, top_k, prompt_tokens)
    with naming(path):
        if not path.exists():
            raise SpecmdError("no such file")
        if not path.is_file():
            raise SpecmdError("not a regular file")
        form = next(each for each in FORMS if each.kind == kind) if kind else _recognised(source)
        source.header = {
            "model": model or "unknown",
            "expert_bytes": round(sum(sizes) / len(sizes)) if sizes else None,
            "expert_bytes_by_layer": tuple(sizes) if len(sizes) > 1 else None,
            "shape": shape,
            "recorder": f"specmd import --kind {form.kind}",
            "source": path.name,
            "license": license,
            "kind": "imported",
            "notes": notes,
        }
        read = getattr(import_module(f"specmd.trace.importers.{form.module}"), form.reader)
        trace: Trace = read(source)
    return _noted(trace)


def _recognised(source: Source) -> Form:
    text = _is_text(source)
    if text and not source.head:
        raise SpecmdError("no rows: the file is empty")
    for form in FORMS:
        binary = form.kind in ("topk-npz", "multi-hot", "npy", "parquet")
        if binary != text and form.matches(source):
            return form
    if text and source.head.lstrip()[:1] in ("{", "[") and source.document is None:
        _ = list(source.objects(dict))  # says which line is not JSON
    forms = "; ".join(f"{form.kind}: {form.says}" for form in FORMS)
    raise SpecmdError(f"not a form that is known. Known are {forms}")


def _noted(trace: Trace) -> Trace:
    from dataclasses import replace

    chosen = trace.chosen
    if chosen is None:
        return trace
    counts = chosen.sum(axis=2)
    short = int(((counts > 0) & (counts < trace.header.top_k)).sum())
    absent = int((counts == 0).sum())
    note = f"ragged: {short:,} rows of fewer experts, {absent:,} layers that a token did not reach"
    notes = "; ".join(filter(None, (trace.header.notes, note)))
    return replace(trace, header=trace.header.model_copy(update={"notes": notes}))
