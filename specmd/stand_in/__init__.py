"""A stand-in for a model: its true shapes, random weights, routing from a recorded trace.

Real bytes are moved and real kernels run, without a checkpoint: `TraceWorkload` puts it together.
"""

from specmd.stand_in.model import build_model, can_build
from specmd.stand_in.routing import ForcedRouting
from specmd.stand_in.store import RandomStore
from specmd.stand_in.workload import PlayedStep, TraceWorkload

__all__ = [
    "ForcedRouting",
    "PlayedStep",
    "RandomStore",
    "TraceWorkload",
    "build_model",
    "can_build",
]
