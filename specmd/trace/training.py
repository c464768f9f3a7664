"""What a training trace tells the policies that are fitted on it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from specmd.core.event import Training
from specmd.trace.trace import Trace


@lru_cache(maxsize=2)
def training_rows(training: Trace) -> Training:
    """Return the routing of a training trace in the form policies are shown."""
    ids = training.expert_ids.astype(np.int64)
    ids[ids >= training.header.num_experts] = -1
    return Training(
        ids,
        _floats(training.weights, np.float64, 3),
        _floats(training.logits, np.float32, 3),
        _floats(training.lookahead, np.float32, 4),
        training.step.astype(np.int64),
        training.request.astype(np.int64),
        training.phase.astype(np.int64),
    )


def _floats(values: Any, kind: Any, dimensions: int) -> Any:
    return np.zeros((0,) * dimensions, kind) if values is None else values.astype(kind)
