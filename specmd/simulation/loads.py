"""What a training trace says of the popularity of its keys; and that it is another trace."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from specmd.core.event import FloatArray, Sizes
from specmd.errors import SpecmdError
from specmd.policy.registry import AXES, choose
from specmd.policy.weights import SEEN, load_model
from specmd.runs.options import RunConfig
from specmd.simulation.events import EventStream
from specmd.trace.overlap import Seen, require_apart, seen

if TYPE_CHECKING:
    from specmd.trace import Trace


def require_unseen(config: RunConfig, trace: Trace, training: Trace | None) -> None:
    """Raise SpecmdError where a policy was fitted to the trace it would be judged on, or a part."""
    for axis in AXES:
        choice = choose(axis, getattr(config, axis))
        if training is not None and "training" in choice.needs:
            require_apart(seen(training), trace, "the training trace")
        if file := choice.weights_file:
            header, tensors = load_model(file)
            known = Seen(header.training, *(tensors[f"{SEEN}{each}"] for each in Seen._fields[1:]))
            require_apart(known, trace, f"{file}: what it was trained on")


def require_same_model(training: Trace, sizes: Sizes) -> None:
    """Raise SpecmdError unless a training trace has the layers and experts of a model."""
    header = training.header
    if (header.num_layers, header.num_experts) != (sizes.num_layers, sizes.num_experts):
        raise SpecmdError("the training trace is of another model: layers or experts differ")


@lru_cache(maxsize=4)
def popularity(training: Trace) -> FloatArray:
    """Count the uses per step of every key in a training trace; shape (keys,)."""
    stream = EventStream(training)
    counts = np.zeros(training.header.num_layers * training.header.num_experts)
    for first, last in stream.stretches(0, stream.num_steps):
        chunk = stream.chunk(first, last)
        counts += np.bincount(chunk.keys[: chunk.start[-1]], minlength=len(counts))
    return counts / stream.num_steps
