"""Traces as other programs write them: the simple forms that `specmd import` reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from specmd.errors import SpecmdError, unknown
from specmd.files import replacing
from specmd.trace.header import SCHEMA
from specmd.trace.trace import Trace


def export_trace(trace: Trace, path: Path, form: str) -> None:
    """Write a trace in another form; what the form cannot hold is left out, as its reader says.

    Args:
        trace: the trace.
        path: the file to write.
        form: one of `FORMS`.

    Raises:
        SpecmdError: there is no such form, it cannot hold this trace, or the file not be written.

    """
    if form not in FORMS:
        raise unknown("format", form, tuple(FORMS))
    write = FORMS[form]
    with replacing(path) as file:
        write(trace, file)


def _rows(trace: Trace) -> pd.DataFrame:
    """Return a row for each chosen expert: by step, then layer, token and rank."""
    token, layer, rank = np.nonzero(trace.expert_ids < trace.header.num_experts)
    order = np.lexsort((rank, token, layer, trace.step[token]))
    token, layer, rank = token[order], layer[order], rank[order]
    columns: dict[str, Any] = {
        "request": trace.request[token],
        "step": trace.step[token],
        "token": token,
        "phase": np.array(["prefill", "decode"])[trace.phase[token]],
        "layer": layer,
        "expert": trace.expert_ids[token, layer, rank],
    }
    if trace.token_ids is not None:
        columns["token_id"] = trace.token_ids[token]
    if trace.weights is not None:
        columns["weight"] = trace.weights[token, layer, rank].astype(np.float32)
    return pd.DataFrame(columns)


def _csv(trace: Trace, file: IO[bytes]) -> None:
    _rows(trace).to_csv(file, index=False)


def _llama_cpp(trace: Trace, file: IO[bytes]) -> None:
    _rows(trace).to_csv(file, index=False, columns=["layer", "expert"])


def _jsonl(trace: Trace, file: IO[bytes]) -> None:
    told = ("model", "num_experts", "expert_bytes", "expert_bytes_by_layer")
    meta = {name: getattr(trace.header, name) for name in told}
    meta = {name: value for name, value in meta.items() if value is not None}
    file.write(json.dumps({"type": "meta", "schema": SCHEMA} | meta).encode() + b"\n")
    rows = _rows(trace)
    where = ["step", "layer", "token"]
    facts = [name for name in rows if name not in {*where, "expert", "weight"}]
    grouped = rows.groupby(where, sort=False)
    listed = {"experts": grouped["expert"].agg(list)}
    if "weight" in rows:
        listed["weights"] = grouped["weight"].agg(list)
    whole = pd.concat([grouped[facts].first(), pd.DataFrame(listed)], axis=1).reset_index()
    whole.to_json(file, orient="records", lines=True, double_precision=15)


def _warp(trace: Trace, file: IO[bytes]) -> None:
    _require_one(trace, "warp")
    for number, layers in enumerate(trace.expert_ids.tolist(), 1):
        file.write(json.dumps({"tok": number, "layers": layers}).encode() + b"\n")


def _npy(trace: Trace, file: IO[bytes]) -> None:
    _require_one(trace, "npy")
    np.save(file, trace.expert_ids)


def _require_one(trace: Trace, form: str) -> None:
    if trace.header.ragged or trace.num_requests > 1:
        raise SpecmdError(
            f"{form} holds one request with k experts everywhere: export csv or jsonl"
        )


FORMS: dict[str, Callable[[Trace, IO[bytes]], None]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "llama-cpp": _llama_cpp,
    "npy": _npy,
    "warp": _warp,
}
