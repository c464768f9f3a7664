"""Traces from ik_llama.cpp's ``moe_routing_trace``, JSON lines.

A ``meta`` line, a ``model`` line, ``route`` lines (one token in one layer: sequence, batch_index,
layer, n_expert, input_token_id, and ``selected``, a list of expert and weight by rank), and an
``end`` line that says whether the recording is whole. Only decode of single tokens is recorded.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import Any

import numpy as np

from specmd.errors import SpecmdError
from specmd.trace.importers.source import Source, integers
from specmd.trace.importers.table import Table
from specmd.trace.trace import Trace

_KINDS = ("meta", "model", "route", "end")


def read_ik_llama(source: Source) -> Trace:
    """Build a trace from a routing trace; see the module.

    Raises SpecmdError naming the line.
    """
    numbers, every = source.lines[0], source.objects
    kinds = [row.get("type") for row in every]
    for line, kind in zip(numbers.tolist(), kinds, strict=True):
        if kind not in _KINDS:
            raise SpecmdError(f"line {line}: type {kind!r} is not one of {', '.join(_KINDS)}")
    routes = [kind == "route" for kind in kinds]
    rows = [row for row, route in zip(every, routes, strict=True) if route]
    lines = numbers[routes]
    names = ("sequence", "batch_index", "layer", "n_expert", "input_token_id")
    sequence, batch, layer, experts, token_id = (
        integers(name, [row.get(name) for row in rows], lines) for name in names
    )
    if len(np.unique(experts)) > 1:
        raise SpecmdError("n_expert differs between layers, which a trace cannot hold")
    chosen: list[Any] = [row.get("selected") for row in rows]
    for line, entries in zip(lines.tolist(), chosen, strict=True):
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise SpecmdError(f"line {line}: 'selected' is not a list of objects")
    counts = np.array(list(map(len, chosen)), np.int64)
    flat, where = list(chain.from_iterable(chosen)), np.repeat(lines, counts)
    weights = [entry.get("weight") for entry in flat]
    for weight, line in zip(weights, where.tolist(), strict=True):
        if type(weight) not in (int, float):
            raise SpecmdError(f"line {line}: weight {str(weight)[:40]!r} is not a number")
    end = every[-1] if kinds[-1] == "end" else {}
    header = dict(source.header)
    header["complete"] = end.get("complete") is True and end.get("routes") in (None, len(rows))
    if header["model"] == "unknown" and isinstance(name := every[0].get("model"), str) and name:
        header["model"] = re.split(r"[/\\]", name)[-1].removesuffix(".gguf")
    table = Table(
        lines,
        layer,
        counts,
        integers("expert", [entry.get("expert") for entry in flat], where),
        np.array(weights, np.float64),
        request=sequence,
        token=batch,
        token_id=token_id,
    )
    told = int(experts[0]) if len(experts) else None
    return table.build(source.experts(told), "decode", header)
