"""What a training trace says of its keys: their popularity."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from specmd.core.event import FloatArray
from specmd.simulation.events import EventStream

if TYPE_CHECKING:
    from specmd.trace import Trace


@lru_cache(maxsize=4)
def popularity(training: Trace) -> FloatArray:
    """Count the uses per step of every key in a training trace; shape (keys,)."""
    stream = EventStream(training)
    counts = np.zeros(training.header.num_layers * training.header.num_experts)
    for first, last in stream.stretches(0, stream.num_steps):
        chunk = stream.chunk(first, last)
        counts += np.bincount(chunk.keys[: chunk.start[-1]], minlength=len(counts))
    return counts / stream.num_steps
