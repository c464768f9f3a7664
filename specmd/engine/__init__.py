"""The live engine: the simulator's policies, unchanged, deciding for a cache that moves bytes."""

from specmd.engine.hollow import load_without_experts
from specmd.engine.live_cache import Offload
from specmd.engine.offloading import offload
from specmd.engine.report import Report

__all__ = ["Offload", "Report", "load_without_experts", "offload"]
