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
from specmd.trace.importers.table import Ints, Table
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
    sizes = _sizes(comments, layer, whole("expert_bytes", frame["expert_bytes"], line), line)
    header = source.described(model and model_of(model[1]), sizes)
    ones = np.ones(len(frame), np.int64)
    weights = reals(frame["weight"], line)
    step = np.cumsum(new, dtype=np.int64)
    table = Table(line, layer, ones, expert, weights, turn, step, token, phase).merged()
    _require_slots(whole("slot", frame["slot"], line), table.counts, line)
    return table.build(
        source.experts(None if model is None else int(model[2])), source.phase, header
    )


def _sizes(comments: list[str], layer: Ints, moved: Ints, line: Ints) -> list[int] | None:
    """Return the bytes of an expert of each layer; rows say them again where they were read."""
    told: dict[int, int] = {}
    for text in comments:
        if text.startswith("# layer="):
            if (size := _SIZE.fullmatch(text)) is None:
                raise SpecmdError(f"'{text[:60]}' does not say layer and expert_bytes")
            told[int(size[1])] = int(size[2])
    every, place = np.unique(layer, return_inverse=True)
    if not told:
        return None
    if absent := set(every.tolist()) - set(told):
        raise SpecmdError(f"no line '# layer={min(absent)} expert_bytes=...', as other layers have")
    sizes = np.array([told[number] for number in every.tolist()])
    wrong = (moved != 0) & (moved != sizes[place])
    if wrong.any():
        at = int(np.argmax(wrong))
        raise SpecmdError(
            f"line {line[at]}: expert_bytes {moved[at]}, but those of layer {layer[at]} are "
            f"{sizes[place[at]]}"
        )
    return [int(size) for size in sizes]


def _require_slots(slot: Ints, counts: Ints, line: Ints) -> None:
    """Check that slots count the experts of each token and layer: none is lost or doubled."""
    expected = np.arange(len(slot)) - np.repeat(np.cumsum(counts) - counts, counts)
    if (slot != expected).any():
        at = int(np.argmax(slot != expected))
        raise SpecmdError(
            f"line {line[at]}: slot {slot[at]}, but {expected[at]} is the next: lines are missing, "
            "doubled or out of order"
        )
