"""Traces from JSON lines.

One object a line, for a token in a layer::

    {"request": 0, "step": 0, "token": 0, "layer": 0, "experts": [3, 1], "weights": [0.7, 0.3],
     "phase": "decode", "token_id": 17}

or for a token in all layers: ``layer`` is left out, ``experts`` and ``weights`` are lists of lists.
Only ``experts`` is needed, and ``layer`` in the first form. ``expert_ids``, ``topk_ids`` and
``topk_weights`` are understood as well; other fields are ignored.

``request`` is 0 where it is missing. ``step`` counts forward passes over the whole file; without it
requests follow one another, a prefill is one step and every decoded token is one. ``token`` tells
the tokens of a step apart; it may be left out if they are written one after another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from specmd.errors import SpecmdError
from specmd.trace.importers.cells import integer, integers, open_text, phase_code, reals
from specmd.trace.importers.rows import Row, RowTable
from specmd.trace.trace import Trace

_EXPERTS = ("experts", "expert_ids", "topk_ids")
_WEIGHTS = ("weights", "topk_weights")
_LONGEST_LINE = 1 << 24


def read_jsonl(path: Path, *, num_experts: int, phase: str, header: Mapping[str, Any]) -> Trace:
    """Build a trace from JSON lines; see the module for the fields.

    Raises SpecmdError naming the file and the line.
    """
    table = RowTable(num_experts)
    with open_text(path) as file:
        number = 0
        while line := file.readline(_LONGEST_LINE):
            number += 1
            if len(line) == _LONGEST_LINE:
                raise SpecmdError(f"line {number}: longer than {_LONGEST_LINE:,} characters")
            if line.strip():
                for row in _rows(number, line):
                    table.add(row)
        return table.build(phase, header)


def _rows(number: int, line: str) -> Iterator[Row]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SpecmdError(f"line {number}: not valid JSON ({error})") from error
    if not isinstance(fields, dict):
        raise SpecmdError(f"line {number}: a JSON object is needed, not a {type(fields).__name__}")
    experts = _array(number, fields, _EXPERTS)
    if experts is None:
        raise SpecmdError(f"line {number}: 'experts' is missing")
    weights = _array(number, fields, _WEIGHTS)
    facts: dict[str, int | None] = {
        name: integer(number, name, fields[name])
        for name in ("request", "step", "token", "token_id")
        if fields.get(name) is not None
    }
    if fields.get("phase") is not None:
        facts["phase"] = phase_code(number, fields["phase"])
    if "layer" in fields:
        yield _row(number, integer(number, "layer", fields["layer"]), experts, weights, facts)
        return
    if weights is not None and len(weights) != len(experts):
        raise SpecmdError(f"line {number}: {len(weights)} layers of weights, not {len(experts)}")
    for layer, chosen in enumerate(experts):
        gate = None if weights is None else weights[layer]
        if not isinstance(chosen, list) or not isinstance(gate, list | None):
            raise SpecmdError(
                f"line {number}: without 'layer', experts and weights are lists of lists"
            )
        yield _row(number, layer, chosen, gate, facts)


def _array(number: int, fields: dict[str, Any], names: tuple[str, ...]) -> list[Any] | None:
    values = next((fields[name] for name in names if fields.get(name) is not None), None)
    if not isinstance(values, list | None):
        raise SpecmdError(f"line {number}: '{names[0]}' is not a list")
    return values


def _row(
    number: int,
    layer: int,
    experts: list[Any],
    weights: list[Any] | None,
    facts: dict[str, int | None],
) -> Row:
    return Row(
        line=number,
        layer=layer,
        experts=integers(number, "expert", experts),
        weights=None if weights is None else reals(number, weights),
        **facts,
    )
