"""Traces from llama.cpp's ``layer,expert``, with or without that header line (llama.cpp#28544).

Layers come in passes, and in a pass each layer has the K rows of each of its tokens, K being the
fewest rows that a layer ever has. A pass is a step; one of several tokens is a prefill. From some
layer on, llama.cpp computes only the last tokens of a prefill, those whose output is wanted: such
layers have fewer rows, or none in a prefill that is not the last pass.
"""

from __future__ import annotations

import numpy as np

from specmd.errors import SpecmdError
from specmd.trace.header import DECODE, PREFILL
from specmd.trace.importers.csv_rows import read_cells, whole
from specmd.trace.importers.source import Source
from specmd.trace.importers.table import Table
from specmd.trace.trace import Trace

_NAMES = ["layer", "expert"]


def read_llama_cpp(source: Source) -> Trace:
    """Build a trace from rows of layer and expert alone; see the module.

    Raises SpecmdError naming the line.
    """
    at, head = next(source.opening(), (0, ""))
    headed = [cell.strip().lower() for cell in head.split(",")] == _NAMES
    frame, line = read_cells(source, at if headed else 0, _NAMES)
    layer, expert = (whole(name, frame[name], line) for name in _NAMES)
    starts = np.flatnonzero(np.diff(layer, prepend=layer[0] - 1))
    lengths = np.diff(np.append(starts, len(layer)))
    layers = layer[starts]
    if len(starts) == 1:
        raise SpecmdError("only one layer: rows of layer,expert alone need two, add a token column")
    top_k = int(lengths.min())
    begins = np.flatnonzero(np.diff(layers, prepend=layers[0] + 1) <= 0)  # where passes begin
    number = np.repeat(np.arange(len(begins)), np.diff(np.append(begins, len(layers))))
    before = np.append(lengths[:1], lengths[:-1])
    before[begins] = lengths[begins]
    wrong = (lengths % top_k != 0) | (lengths > before)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise SpecmdError(
            f"line {line[starts[at]]}: layer {layers[at]} has {lengths[at]} rows in this pass, not "
            f"{before[at]} (k is {top_k}, the fewest rows of a layer)"
        )
    every = np.unique(layers)
    tokens = lengths[begins] // top_k
    had = np.bincount(number, minlength=len(begins))
    short = had < len(every)
    short[:-1] &= (tokens[:-1] == 1) | (layers[begins[:-1]] != every[0])
    if short.any():
        at = int(np.argmax(short))
        missing = sorted(set(every.tolist()) - set(layers[number == at].tolist()))[0]
        raise SpecmdError(f"line {line[starts[begins[at]]]}: this token has no layer {missing}")
    # Of a layer with fewer tokens than its pass, the last ones.
    run = np.repeat(np.arange(len(starts)), lengths)
    place = (np.arange(len(layer)) - starts[run]) // top_k
    token = place + tokens[number[run]] - lengths[run] // top_k
    wide = source.phase == "prefill"
    step = number[run]
    phase = np.where((tokens[step] > 1) | wide, PREFILL, DECODE)
    if wide:
        token, step = token + (np.cumsum(tokens) - tokens)[step], np.zeros_like(step)
    ones = np.ones(len(layer), np.int64)
    table = Table(line, layer, ones, expert, step=step, token=token, phase=phase)
    return table.merged().build(source.experts(), source.phase, source.header)
