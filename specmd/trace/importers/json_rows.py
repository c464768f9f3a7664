"""Traces from JSON lines.

One object a line, for a token in a layer::

    {"request": 0, "step": 0, "token": 0, "layer": 0, "experts": [3, 1], "weights": [0.7, 0.3],
     "phase": "decode", "token_id": 17}

or for a token in all layers: ``layer`` is left out, ``experts`` and ``weights`` are lists of lists.
Only ``experts`` is needed, and ``layer`` in the first form. Other programs' names are understood:
those of vLLM's layer logs (``req_id``, ``token_idx``, ``topk_ids``, ``topk_weights``, and lines
of ``"type": "meta"``, which are skipped), of lattice (``layer_idx``, ``token_idx``,
``selected_ids``, ``gate_weights``) and of warp (``tok``, and ``layers`` for the lists of lists).
Other fields are ignored.

A first line ``{"type": "meta", "schema": "specmd.trace", ...}``, as `specmd export` writes it, says
model, num_experts, expert_bytes and expert_bytes_by_layer.

``request`` is 0 where it is missing. ``step`` counts forward passes over the whole file; without it
requests follow one another, a prefill is one step and every decoded token is one. ``token`` tells
the tokens of a step apart; it may be left out if they are written one after another. vLLM numbers
them from 0 in each forward pass: a number that does not grow begins a step.
"""

from __future__ import annotations

from itertools import chain
from operator import attrgetter
from types import NoneType
from typing import Any, NoReturn

import msgspec
import numpy as np
import pandas as pd

from specmd.errors import SpecmdError
from specmd.trace.header import DECODE, PREFILL, SCHEMA
from specmd.trace.importers.source import Integer, Source, integers, phase_codes, reals
from specmd.trace.importers.table import Ints, Table
from specmd.trace.trace import Trace

_NESTED = "experts and weights are lists of lists"
_SIZES = ("expert_bytes", "expert_bytes_by_layer")
_NAMES = {
    "experts": ("experts", "expert_ids", "topk_ids", "selected_ids", "layers"),
    "weights": ("weights", "topk_weights", "gate_weights"),
    "layer": ("layer", "layer_idx"),
    "request": ("request", "req_id"),
    "step": ("step",),
    "token": ("token", "token_idx", "tok"),
    "phase": ("phase",),
    "token_id": ("token_id",),
}


class Row(msgspec.Struct, gc=False):
    """A line: every name that is understood, None where it is missing."""

    type: Any = None
    experts: Any = None
    expert_ids: Any = None
    topk_ids: Any = None
    selected_ids: Any = None
    layers: Any = None
    weights: Any = None
    topk_weights: Any = None
    gate_weights: Any = None
    request: Any = None
    req_id: Any = None
    step: Any = None
    token: Any = None
    token_idx: Any = None
    tok: Any = None
    phase: Any = None
    token_id: Any = None
    layer: Any = None
    layer_idx: Any = None


def read_json_rows(source: Source) -> Trace:
    """Build a trace from JSON lines; see the module for the fields.

    Raises SpecmdError naming the line.
    """
    every = (pair for block in source.objects(Row) for pair in zip(*block, strict=True))
    first, row = next((pair for pair in every if pair[1].type != "meta"), (0, None))
    if row is None:
        raise SpecmdError("no rows: the file is empty")
    given = _given(row, first)
    parts: list[dict[str, Any]] = []
    for lines, rows in source.objects(Row, _sure(row, given)):
        if "meta" in (kinds := [row.type for row in rows]):
            lines = lines[[kind != "meta" for kind in kinds]]
            rows = [row for row in rows if row.type != "meta"]
        if rows:
            parts.append(_columns(rows, lines, given, first))
    if "request" in given:
        _number_requests(parts)
    facts: dict[str, Any] = {
        name: np.concatenate([part[name] for part in parts]) for name in parts[0]
    }
    if "layer" not in given and "token" not in given:
        facts["token"] = facts["line"]
    if "step" not in given and (given["experts"], given.get("token")) == ("topk_ids", "token_idx"):
        _restart(facts)
    told = source.first if source.first.get("schema") == SCHEMA else {}
    header = source.described(told.get("model"))
    if header["expert_bytes"] is None:
        header |= {name: told[name] for name in _SIZES if name in told}
    experts = told.get("num_experts")
    if type(experts) not in (int, NoneType):
        raise SpecmdError(f"line 1: num_experts {str(experts)[:40]!r} is not a number")
    return Table(**facts).build(source.experts(experts), source.phase, header)


def _given(row: Row, line: int) -> dict[str, str]:
    """Return under which name the file gives what, as its first row does."""
    given: dict[str, str] = {}
    for meaning, names in _NAMES.items():
        for name in names:
            if getattr(row, name) is not None:
                if meaning in given:
                    raise SpecmdError(
                        f"line {line}: {given[meaning]} and {name} mean the same: leave one out"
                    )
                given[meaning] = name
    if "experts" not in given:
        raise SpecmdError(f"line {line}: 'experts' is missing")
    return given


def _sure(row: Row, given: dict[str, str]) -> type[msgspec.Struct]:
    """Return what lines like the first one are: each with these fields, and none but these."""
    types: dict[str, Any] = dict.fromkeys(given, Integer)
    types |= {"phase": str | Integer, "experts": list[Integer], "weights": list[float]}
    if "layer" not in given:
        types |= {"experts": list[list[Integer]], "weights": list[list[float]]}
    if isinstance(row.request or row.req_id, str):
        types["request"] = str
    fields: list[Any] = [("type", Any, None)]
    for meaning, names in _NAMES.items():
        for name in names:
            there = given.get(meaning) == name
            fields.append((name, types[meaning]) if there else (name, None, None))
    return msgspec.defstruct("SureRow", fields, gc=False, kw_only=True)


def _columns(rows: list[Row], lines: Ints, given: dict[str, str], begin: int) -> dict[str, Any]:
    """Return the columns of a `Table`, of some rows; of those alone that are given."""
    if sure := type(rows[0]) is not Row:
        found = {name: list(map(attrgetter(given[name]), rows)) for name in given}
    else:
        found = _checked(rows, lines, given, begin)
    experts, weights = found.pop("experts"), found.pop("weights", None)
    facts: dict[str, Any] = {}
    for name, values in found.items():
        if name == "phase":
            facts[name] = phase_codes(values, lines)
        elif name == "request" and set(map(type, values)) == {str}:
            facts[name] = np.array(values)
        else:
            facts[name] = np.array(values, np.int64) if sure else integers(name, values, lines)
    if "layer" not in facts:
        depth = np.array(list(map(len, experts)), np.int64)
        _require_equal(depth, weights, lines, "layers of weights, not")
        whole = np.repeat(np.arange(len(rows)), depth)
        facts = {name: held[whole] for name, held in facts.items()}
        facts["layer"] = np.arange(len(whole)) - (np.cumsum(depth) - depth)[whole]
        lines, experts = lines[whole], list(chain.from_iterable(experts))
        weights = None if weights is None else list(chain.from_iterable(weights))
        for listed in (experts, weights):
            if not sure:
                _require_lists(listed, lines, f"without 'layer', {_NESTED}")
    counts = np.array(list(map(len, experts)), np.int64)
    facts |= {"line": lines, "counts": counts}
    flat = list(chain.from_iterable(experts))
    gates = None if weights is None else list(chain.from_iterable(weights))
    _require_equal(counts, weights, lines, "weights for", " experts")
    if sure:
        facts["experts"] = np.array(flat, np.int64)
        if gates is not None:
            facts["weights"] = np.array(gates, np.float64)
    else:
        facts["experts"] = integers("expert", flat, np.repeat(lines, counts))
        if gates is not None:
            facts["weights"] = reals(gates, np.repeat(lines, counts))
    return facts


def _checked(
    rows: list[Row], lines: Ints, given: dict[str, str], begin: int
) -> dict[str, list[Any]]:
    """Return the fields that are given; raise SpecmdError where a row has others than the first."""
    found: dict[str, list[Any]] = {}
    for meaning, names in _NAMES.items():
        for name in names:
            values = list(map(attrgetter(name), rows))
            if given.get(meaning) == name:
                found[meaning] = values
                absent = values.index(None) if None in values else None
            else:
                absent = _first(values)
            if absent is not None:
                _refuse(meaning, name, given.get(meaning, name), lines[absent], begin)
    for name in ("experts", "weights"):
        _require_lists(found.get(name), lines, f"'{name}' is not a list")
    return found


def _first(values: list[Any]) -> int | None:
    """Return the place of the first value that is given, None where none is."""
    if values.count(None) == len(values):
        return None
    return next(at for at, value in enumerate(values) if value is not None)


def _refuse(meaning: str, name: str, usual: str, line: int, begin: int) -> NoReturn:
    """Refuse a line that gives what the first one does not, or the other way round."""
    if name != usual:
        raise SpecmdError(f"line {line}: {usual} and {name} mean the same: leave one out")
    if meaning == "experts":
        raise SpecmdError(f"line {line}: 'experts' is missing")
    if meaning == "layer":
        raise SpecmdError(f"line {line}: without 'layer', {_NESTED}")
    raise SpecmdError(
        f"line {line}: '{name}' is given here or on line {begin}, but not on both: give it "
        "everywhere or nowhere"
    )


def _require_lists(values: list[Any] | None, lines: Ints, says: str) -> None:
    if values is not None and not set(map(type, values)) <= {list}:
        at = next(i for i, value in enumerate(values) if type(value) is not list)
        raise SpecmdError(f"line {lines[at]}: {says}")


def _require_equal(
    counts: Ints, weights: list[Any] | None, lines: Ints, says: str, what: str = ""
) -> None:
    if weights is not None:
        found = np.array(list(map(len, weights)), np.int64)
        if (found != counts).any():
            at = int(np.argmax(found != counts))
            raise SpecmdError(f"line {lines[at]}: {found[at]} {says} {counts[at]}{what}")


def _number_requests(parts: list[dict[str, Any]]) -> None:
    """Replace the names of requests by numbers, if they have names."""
    named = [part["request"].dtype.kind == "U" for part in parts]
    if any(named):
        if not all(named):
            line = parts[named.index(not named[0])]["line"][0]
            raise SpecmdError(f"line {line}: requests have names and numbers: give one of the two")
        numbers = pd.factorize(np.concatenate([part["request"] for part in parts]))[0]
        ends = np.cumsum([len(part["request"]) for part in parts])
        for part, column in zip(parts, np.split(numbers.astype(np.int64), ends[:-1]), strict=True):
            part["request"] = column


def _restart(facts: dict[str, Any]) -> None:
    """Turn token numbers that begin anew in every forward pass into steps, prefill if several."""
    token, layers = facts["token"], facts["layer"]
    # A pass ends where a layer that it has had comes again from token 0.
    begins = np.flatnonzero(token == 0)
    again = np.zeros(len(token), np.int64)
    seen: set[int] = set()
    for at, layer in zip(begins.tolist(), layers[begins].tolist(), strict=True):
        if layer in seen:
            again[at], seen = 1, set()
        seen.add(layer)
    step = np.cumsum(again)
    several = np.isin(step, step[token > 0])
    facts["step"] = step
    facts["phase"] = np.where(several, PREFILL, DECODE)
