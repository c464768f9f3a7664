"""The live engine: the simulator's policies, unchanged, deciding for a cache that moves bytes."""

from specmd.live.cache import Offload
from specmd.live.offload import offload
from specmd.live.report import Report
from specmd.models.meta import load_without_experts

__all__ = ["Offload", "Report", "load_without_experts", "offload"]
