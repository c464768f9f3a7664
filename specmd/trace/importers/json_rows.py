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

``request`` is 0 where it is missing. ``step`` counts forward passes over the whole file; without it
requests follow one another, a prefill is one step and every decoded token is one. ``token`` tells
the tokens of a step apart; it may be left out if they are written one after another. vLLM numbers
them from 0 in each forward pass: a number that does not grow begins a step.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from specmd.errors import SpecmdError
from specmd.trace.header import DECODE, PREFILL
from specmd.trace.importers.source import Source, integers, phase_codes
from specmd.trace.importers.table import Ints, Table
from specmd.trace.trace import Trace

EXPERTS = ("experts", "expert_ids", "topk_ids", "selected_ids", "layers")
_NESTED = "experts and weights are lists of lists"
_NAMES = {
    "weights": ("weights", "topk_weights", "gate_weights"),
    "request": ("request", "req_id"),
    "step": ("step",),
    "token": ("token", "token_idx", "tok"),
    "phase": ("phase",),
    "token_id": ("token_id",),
    "layer": ("layer", "layer_idx"),
}


def read_json_rows(source: Source) -> Trace:
    """Build a trace from JSON lines; see the module for the fields.

    Raises SpecmdError naming the line.
    """
    lines, rows = source.lines[0], source.objects
    known = set().union(*set(map(tuple, rows)))
    if "type" in known:
        routes = [row.get("type") != "meta" for row in rows]
        lines, rows = lines[routes], [row for row in rows if row.get("type") != "meta"]
    if not rows:
        raise SpecmdError("no rows: the file is empty")
    experts = _column(rows, [name for name in EXPERTS if name in known], lines, "experts")
    if experts is None:
        raise SpecmdError(f"line {lines[0]}: 'experts' is missing")
    found = {
        name: _column(rows, [each for each in names if each in known], lines, name)
        for name, names in _NAMES.items()
    }
    weights, layer = found.pop("weights"), found.pop("layer")
    _require_lists(experts, weights, lines)
    facts: dict[str, Ints | None] = {}
    for name, values in found.items():
        if values is None:
            facts[name] = None
        elif name == "phase":
            facts[name] = phase_codes(values, lines)
        elif name == "request" and set(map(type, values)) == {str}:
            facts[name] = pd.factorize(np.array(values))[0].astype(np.int64)
        else:
            facts[name] = integers(name, values, lines)
    if layer is None:
        depth = list(map(len, experts))
        if weights is not None and depth != list(map(len, weights)):
            at = int(np.argmax(np.array(depth) != list(map(len, weights))))
            raise SpecmdError(
                f"line {lines[at]}: {len(weights[at])} layers of weights, not {depth[at]}"
            )
        if facts["token"] is None:
            facts["token"] = np.arange(len(rows))
        whole = np.repeat(np.arange(len(rows)), depth)
        facts = {name: None if held is None else held[whole] for name, held in facts.items()}
        layers: Ints = np.arange(len(whole)) - (np.cumsum(depth, dtype=np.int64) - depth)[whole]
        lines, experts = lines[whole], list(chain.from_iterable(experts))
        weights = None if weights is None else list(chain.from_iterable(weights))
        for each in (experts, weights):
            if each is not None and not set(map(type, each)) <= {list}:
                at = next(i for i, chosen in enumerate(each) if type(chosen) is not list)
                raise SpecmdError(f"line {lines[at]}: without 'layer', {_NESTED}")
    else:
        layers = integers("layer", layer, lines)
        if facts["step"] is None and {"topk_ids", "token_idx"} <= rows[0].keys():
            _restart(layers, facts)
    counts = np.array(list(map(len, experts)), np.int64)
    table = Table(
        lines,
        layers,
        counts,
        integers("expert", list(chain.from_iterable(experts)), np.repeat(lines, counts)),
        None if weights is None else _weights(weights, counts, lines),
        **facts,
    )
    return table.build(source.experts(), source.phase, source.header)


def _column(
    rows: list[dict[str, Any]], names: list[str], lines: Ints, shown: str
) -> list[Any] | None:
    """Return a field of all rows, under the first of its names; None where no row has it."""
    for name in names:
        values = [row.get(name) for row in rows]
        if None in values:
            silent = [value is None for value in values]
            if all(silent):
                continue
            at = lines[silent.index(True)]
            if shown == "experts":
                raise SpecmdError(f"line {at}: 'experts' is missing")
            if shown == "layer":
                raise SpecmdError(f"line {at}: without 'layer', {_NESTED}")
            at = lines[silent.index(not silent[0])]
            raise SpecmdError(
                f"line {at}: '{name}' is given here or on line {lines[0]}, but not on both: give "
                "it everywhere or nowhere"
            )
        return values
    return None


def _require_lists(experts: list[Any], weights: list[Any] | None, lines: Ints) -> None:
    for name, values in (("experts", experts), ("weights", weights)):
        if values is not None and set(map(type, values)) != {list}:
            at = next(i for i, value in enumerate(values) if type(value) is not list)
            raise SpecmdError(f"line {lines[at]}: '{name}' is not a list")


def _weights(weights: list[list[Any]], counts: Ints, lines: Ints) -> Any:
    given = np.array(list(map(len, weights)), np.int64)
    if (given != counts).any():
        at = int(np.argmax(given != counts))
        raise SpecmdError(f"line {lines[at]}: {given[at]} weights for {counts[at]} experts")
    flat = list(chain.from_iterable(weights))
    if not set(map(type, flat)) <= {float, int}:
        at = next(i for i, value in enumerate(flat) if type(value) not in (float, int))
        line = np.repeat(lines, counts)[at]
        raise SpecmdError(f"line {line}: weight {str(flat[at])[:40]!r} is not a number")
    try:
        return np.array(flat, np.float64)
    except OverflowError:
        raise SpecmdError("a weight is too large") from None


def _restart(layers: Ints, facts: dict[str, Ints | None]) -> None:
    """Turn token numbers that begin anew in every forward pass into steps, prefill if several."""
    token = facts["token"]
    assert token is not None
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
