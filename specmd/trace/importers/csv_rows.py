"""Traces from CSV.

``layer,experts[,weights]``, with a header line
    one row per token and layer, experts and weights separated by spaces or semicolons;
``layer,expert[,weight]``, with a header line
    one row per chosen expert, the rows of a token and layer one after another.

Both take the columns ``request``, ``step``, ``token``, ``phase`` and ``token_id``, which mean what
they mean in JSON lines (`specmd.trace.importers.json_rows`).

``layer,expert`` and nothing else, with or without a header line
    llama.cpp's form. Its layers come in passes, and in a pass each layer has the K rows of each of
    its tokens, K being the fewest rows that a layer ever has. A pass is a step; one of several
    tokens is a prefill.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from specmd.errors import SpecmdError, unknown
from specmd.trace.header import DECODE, PREFILL
from specmd.trace.importers.cells import integer, integers, open_text, phase_code, reals
from specmd.trace.importers.rows import Row, RowTable
from specmd.trace.trace import Trace

_FACTS = ("request", "step", "token", "token_id")
_COLUMNS = ("layer", "expert", "experts", "weight", "weights", "phase", *_FACTS)
Lines = Iterator[tuple[int, list[str]]]


def read_csv(path: Path, *, num_experts: int, phase: str, header: Mapping[str, Any]) -> Trace:
    """Build a trace from a CSV file; see the module for the columns.

    Raises SpecmdError naming the file and the line.
    """
    table = RowTable(num_experts)
    with open_text(path) as file:
        reader = csv.reader(file, strict=True)
        lines = ((reader.line_num, cells) for cells in reader if any(map(str.strip, cells)))
        try:
            for row in _rows(lines, phase):
                table.add(row)
        except csv.Error as error:
            raise SpecmdError(f"line {reader.line_num}: not valid CSV ({error})") from error
        return table.build(phase, header)


def _rows(lines: Lines, phase: str) -> Iterator[Row]:
    number, cells = next(lines, (0, []))
    names = [name.strip().lower() for name in cells]
    if not names:
        return iter(())
    if len(names) == 2 and all(name.isdecimal() for name in names):
        return _passes([(number, cells)], lines, phase)
    if names == ["layer", "expert"]:
        return _passes([], lines, phase)
    for name in names:
        if name not in _COLUMNS:
            raise unknown(f"column in line {number}:", name, _COLUMNS)
    if len(set(names)) < len(names):
        raise SpecmdError(f"line {number}: a column is named twice")
    if "layer" not in names or ("expert" in names) == ("experts" in names):
        raise SpecmdError(f"line {number}: 'layer' and either 'expert' or 'experts' are needed")
    rows = (_row(names, number, cells) for number, cells in lines)
    return _grouped(rows) if "expert" in names else rows


def _row(names: list[str], number: int, cells: list[str]) -> Row:
    if len(cells) != len(names):
        raise SpecmdError(f"line {number}: {len(cells)} cells, but there are {len(names)} columns")
    fields = dict(zip(names, cells, strict=True))
    facts: dict[str, int | None] = {
        name: integer(number, name, fields[name]) for name in _FACTS if name in fields
    }
    if "phase" in fields:
        facts["phase"] = phase_code(number, fields["phase"])
    experts = fields.get("experts", fields.get("expert", ""))
    weights = fields.get("weights", fields.get("weight"))
    return Row(
        line=number,
        layer=integer(number, "layer", fields["layer"]),
        experts=integers(number, "expert", _split(experts)),
        weights=None if weights is None else reals(number, _split(weights)),
        **facts,
    )


def _split(text: str) -> list[str]:
    return text.replace(";", " ").split()


def _grouped(rows: Iterator[Row]) -> Iterator[Row]:
    """Join rows of one expert each that follow each other in the same layer of the same token."""
    whole: Row | None = None
    for row in rows:
        if whole is not None and _where(whole) == _where(row):
            weights = None if row.weights is None else [*(whole.weights or ()), *row.weights]
            whole = whole._replace(experts=[*whole.experts, *row.experts], weights=weights)
        else:
            if whole is not None:
                yield whole
            whole = row
    if whole is not None:
        yield whole


def _where(row: Row) -> tuple[int | None, ...]:
    return (row.layer, row.request, row.step, row.token)


def _passes(first: list[tuple[int, list[str]]], lines: Lines, phase: str) -> Iterator[Row]:
    layer, expert, line = array("q"), array("q"), array("q")
    for source in (first, lines):
        for number, cells in source:
            if len(cells) != 2:
                raise SpecmdError(f"line {number}: {len(cells)} cells, not layer and expert")
            layer.append(integer(number, "layer", cells[0]))
            expert.append(integer(number, "expert", cells[1]))
            line.append(number)
    if not layer:
        return
    starts = np.flatnonzero(np.diff(np.array(layer), prepend=layer[0] - 1))
    lengths = np.diff(np.append(starts, len(layer)))
    if len(starts) == 1:
        raise SpecmdError("only one layer: rows of layer,expert alone need two, add a token column")
    top_k = int(lengths.min())
    number = tokens = seen = 0
    above = -1
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        if layer[start] <= above or start == 0:
            number, seen, tokens = number + (start > 0), seen + tokens, length // top_k
        above = layer[start]
        if length != tokens * top_k:
            raise SpecmdError(
                f"line {line[start]}: layer {above} has {length} rows in this pass, not "
                f"{tokens * top_k} (k is {top_k}, the fewest rows of a layer)"
            )
        for token in range(tokens):
            at = start + token * top_k
            wide = phase == "prefill"
            yield Row(
                line=line[at],
                layer=above,
                experts=expert[at : at + top_k],
                step=0 if wide else number,
                token=seen + token if wide else token,
                phase=PREFILL if wide or tokens > 1 else DECODE,
            )
