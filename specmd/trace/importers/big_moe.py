"""Traces from BigMoeOnEdge's route traces.

Comment lines say the model, its sizes, and the bytes of an expert of each layer; then come the
columns ``turn,phase,step,layer,slot,expert,weight,residency,expert_bytes``, a row a routed expert,
layer by layer within a pass. ``phase`` is 0 in the prefill, 1 in decode; ``step`` numbers tokens.
"""

from __future__ import annotations

import re
from itertools import islice, takewhile

import numpy as np

from specmd.errors import SpecmdError
from specmd.trace.importers.csv_rows import read_cells, reals, whole
from specmd.trace.importers.source import Source, model_of
from specmd.trace.importers.table import Table
from specmd.trace.trace import Trace

FIRST = "# route_trace v1"
_NAMES = ["turn", "phase", "step", "layer", "slot", "expert", "weight", "residency", "expert_bytes"]
_MODEL = re.compile(r"# model=(.*) arch=\S+ n_layer=\d+ n_expert=(\d{1,6}) .*", re.ASCII)
_SIZE = re.compile(r"# layer=(\d{1,6}) expert_bytes=(\d{1,15})\b.*", re.ASCII)


def read_big_moe(source: Source) -> Trace:
    """Build a trace from a route trace, with the bytes of an expert by layer; see the module.

    Raises SpecmdError naming the line.
    """
    opening = source.opening()
    comments = [text for _, text in takewhile(lambda line: line[1].startswith("#"), opening)]
    at, columns = next(islice(source.opening(), len(comments), None), (0, ""))
    if columns != ",".join(_NAMES):
        raise SpecmdError(f"line {at}: the columns are not {','.join(_NAMES)}")
    model = next((found for text in comments if (found := _MODEL.fullmatch(text))), None)
    frame, line = read_cells(source, at, _NAMES)
    turn, phase, token, layer, expert = (
        whole(name, frame[name], line) for name in ("turn", "phase", "step", "layer", "expert")
    )
    if ((phase != 0) & (phase != 1)).any():
        at = int(np.argmax((phase != 0) & (phase != 1)))
        raise SpecmdError(f"line {line[at]}: phase {phase[at]} is neither 0 nor 1")
    # A pass ends where the turn or the phase changes, layers start again, or a decoded token ends.
    new = np.zeros(len(frame), np.bool_)
    new[1:] = (np.diff(turn) != 0) | (np.diff(phase) != 0) | (np.diff(layer) < 0)
    new[1:] |= (phase[1:] == 1) & (np.diff(token) != 0)
    told = {int(m[1]): int(m[2]) for text in comments if (m := _SIZE.fullmatch(text))}
    sizes = [told.get(number, 0) for number in np.unique(layer).tolist()]
    header = source.described(model and model_of(model[1]), sizes if all(sizes) else None)
    table = Table(
        line,
        layer,
        np.ones(len(frame), np.int64),
        expert,
        reals(frame["weight"], line),
        request=turn,
        step=np.cumsum(new),
        token=token,
        phase=phase,
    )
    experts = source.experts(None if model is None else int(model[2]))
    return table.merged().build(experts, source.phase, header)
