"""Traces from ik_llama.cpp's ``moe_routing_trace``, JSON lines.

A ``meta`` line, a ``model`` line, ``route`` lines (one token in one layer: sequence, batch_index,
layer, n_expert, input_token_id, and ``selected``, a list of expert and weight by rank), and an
``end`` line that says whether the recording is whole. Only decode of single tokens is recorded.
"""

from __future__ import annotations

from itertools import chain, compress
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from specmd.errors import SpecmdError
from specmd.trace.importers.source import Integer, Source, model_of
from specmd.trace.importers.table import Ints, Table
from specmd.trace.trace import Trace

_FACTS = ("sequence", "batch_index", "layer", "n_expert", "input_token_id")


class Meta(msgspec.Struct, tag="meta"):
    """The first line."""

    model: str | None = None


class Model(msgspec.Struct, tag="model"):
    """The second line, of which nothing is needed."""


class Chosen(msgspec.Struct, gc=False):
    """An expert of a route."""

    expert: Integer
    weight: float


class Route(msgspec.Struct, tag="route", gc=False):
    """One token in one layer."""

    sequence: Integer
    batch_index: Integer
    layer: Integer
    n_expert: Integer
    input_token_id: Integer
    selected: list[Chosen]


class End(msgspec.Struct, tag="end"):
    """The last line."""

    complete: bool = False
    routes: int | None = None


Line = Meta | Model | Route | End


def read_ik_llama(source: Source) -> Trace:
    """Build a trace from a routing trace; see the module.

    Raises SpecmdError naming the line.
    """
    model, end, routes = "", End(), 0
    parts: list[tuple[Any, ...]] = []
    for lines, rows in source.objects(Line):
        kept = [type(row) is Route for row in rows]
        parts.append(_columns(lines[kept], list(compress(rows, kept))))
        routes += len(parts[-1][0])
        model = model or next((row.model or "" for row in rows if type(row) is Meta), "")
        end = rows[-1] if type(rows[-1]) is End else End()
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    lines, counts, expert, weights, sequence, batch, layer, experts, token_id = columns
    if len(np.unique(experts)) > 1:
        raise SpecmdError("n_expert differs between layers, which a trace cannot hold")
    header = source.described(model_of(model))
    header["complete"] = end.complete and end.routes in (None, routes)
    table = Table(
        lines,
        layer,
        counts,
        expert,
        weights,
        request=sequence,
        token=batch,
        token_id=token_id,
    )
    told = int(experts[0]) if len(experts) else None
    return table.build(source.experts(told), "decode", header)


def _columns(lines: Ints, rows: list[Route]) -> tuple[Any, ...]:
    """Return line, counts, experts and weights of some routes, and what `_FACTS` names."""
    chosen = list(map(attrgetter("selected"), rows))
    flat = list(chain.from_iterable(chosen))
    return (
        lines,
        np.fromiter(map(len, chosen), np.int64, len(rows)),
        np.fromiter(map(attrgetter("expert"), flat), np.int64, len(flat)),
        np.fromiter(map(attrgetter("weight"), flat), np.float64, len(flat)),
        *(np.fromiter(map(attrgetter(name), rows), np.int64, len(rows)) for name in _FACTS),
    )
