"""Traces from ik_llama.cpp's ``moe_routing_trace``, JSON lines.

A ``meta`` line, a ``model`` line, ``route`` lines (one token in one layer: event, counted from 0,
sequence, batch_index, layer, n_expert, input_token_id, and ``selected``, a list of rank, expert and
weight by rank), and an ``end`` line that says whether the recording is whole. Only decode of single
tokens is recorded.
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

_FACTS = ("event", "sequence", "batch_index", "layer", "n_expert", "input_token_id")


class Meta(msgspec.Struct, tag="meta"):
    """The first line."""

    model: str | None = None


class Model(msgspec.Struct, tag="model"):
    """The second line, of which nothing is needed."""


class Chosen(msgspec.Struct, gc=False):
    """An expert of a route."""

    rank: Integer
    expert: Integer
    weight: float


class Route(msgspec.Struct, tag="route", gc=False):
    """One token in one layer."""

    event: Integer
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
        end = rows[-1] if type(rows[-1]) is End else End()
        if set(map(type, rows)) != {Route}:
            model = model or next((row.model or "" for row in rows if type(row) is Meta), "")
            kept = [type(row) is Route for row in rows]
            lines, rows = lines[kept], list(compress(rows, kept))
        parts.append(_columns(lines, rows))
        routes += len(rows)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    lines, counts, rank, expert, weights, event, sequence, batch, layer, experts, token_id = columns
    _require_numbered("event", event, np.arange(len(event)), lines)
    places = np.arange(len(rank)) - np.repeat(np.cumsum(counts) - counts, counts)
    _require_numbered("rank", rank, places, np.repeat(lines, counts))
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
    """Return line, counts, ranks, experts and weights of routes, and what `_FACTS` names."""
    chosen = list(map(attrgetter("selected"), rows))
    flat = list(chain.from_iterable(chosen))
    return (
        lines,
        np.fromiter(map(len, chosen), np.int64, len(rows)),
        np.fromiter(map(attrgetter("rank"), flat), np.int64, len(flat)),
        np.fromiter(map(attrgetter("expert"), flat), np.int64, len(flat)),
        np.fromiter(map(attrgetter("weight"), flat), np.float64, len(flat)),
        *(np.fromiter(map(attrgetter(name), rows), np.int64, len(rows)) for name in _FACTS),
    )


def _require_numbered(name: str, found: Ints, expected: Ints, lines: Ints) -> None:
    """Check numbers that count on: what is left out, doubled or moved is seen by them."""
    if (found != expected).any():
        at = int(np.argmax(found != expected))
        raise SpecmdError(
            f"line {lines[at]}: {name} {found[at]}, but {expected[at]} is the next: lines are "
            "missing, doubled or out of order"
        )
