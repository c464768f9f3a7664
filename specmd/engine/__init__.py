"""The live engine: the simulator's policies, unchanged, deciding for a cache that moves bytes."""

from specmd.engine.offloading import Offload, offload
from specmd.engine.report import Report

__all__ = ["Offload", "Report", "offload"]
