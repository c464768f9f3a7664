"""Traces from npz files of one-or-zero arrays over all experts (tokens, layers, E).

``nodes``
    FineMoE's expert maps: a one for each expert that a token used; ``probs`` (tokens, layers, E)
    beside it orders a row by the router's probability and gives the weights.
``trace_collection``
    MoE-Infinity's. It adds up a sequence: a count above one is the sum over several forward
    passes, whose order is lost, and is refused.

Optional: ``stage`` (tokens,), 0 prefill or 1 decode; ``seq`` (tokens,), the request of each token.
"""

from __future__ import annotations

import numpy as np

from specmd.errors import SpecmdError
from specmd.trace.header import DECODE, PREFILL
from specmd.trace.importers.source import Source
from specmd.trace.importers.table import Table
from specmd.trace.npz import open_archive
from specmd.trace.trace import Trace

ARRAYS = ("nodes", "trace_collection")


def read_multi_hot(source: Source) -> Trace:
    """Build a trace from arrays over all experts; see the module.

    Raises SpecmdError: the file is damaged, or its content is not valid.
    """
    with open_archive(source.path) as archive:
        wanted = (*ARRAYS, "probs", "stage", "seq")
        found = {name: archive.read(name) for name in wanted if name in archive.members}
    name = next(each for each in ARRAYS if each in found)
    used, probs = found[name], found.get("probs")
    if used.ndim != 3 or 0 in used.shape or used.dtype.kind not in "biuf":
        raise SpecmdError(f"{name} is {used.dtype} {used.shape}, not numbers (tokens, layers, E)")
    if not ((used == 0) | (used == 1)).all():
        raise SpecmdError(
            f"{name} holds counts above one: sums over a sequence have lost the order of its passes"
        )
    experts = source.experts(used.shape[2])
    if probs is not None and (probs.shape != used.shape or probs.dtype.kind != "f"):
        raise SpecmdError(f"probs is {probs.dtype} {probs.shape}, not floats {used.shape}")
    token, layer, expert = np.nonzero(used)
    weights = None
    if probs is not None:
        weights = probs[token, layer, expert].astype(np.float64)
        order = np.lexsort((expert, -weights, layer, token))
        token, layer, expert = token[order], layer[order], expert[order]
        weights = weights[order]
    facts = {}
    for key, at in (("stage", "phase"), ("seq", "request")):
        if key in found:
            column = found[key]
            if column.shape != used.shape[:1] or column.dtype.kind not in "iu":
                raise SpecmdError(f"{key} is not {used.shape[0]} integers, one a token")
            facts[at] = column.astype(np.int64)[token]
    stage = facts.get("phase", np.zeros(0))
    if ((stage != PREFILL) & (stage != DECODE)).any():
        raise SpecmdError("stage is neither 0 (prefill) nor 1 (decode)")
    ones = np.ones(len(token), np.int64)
    table = Table(token + 1, layer, ones, expert, weights, token=token, **facts)
    return table.merged().build(experts, source.phase, source.header)
