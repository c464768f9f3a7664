"""Measured runs: a workload played through a live cache, timed, recorded like a simulation."""

from specmd.measurement.measuring import Measured, measure
from specmd.measurement.settings import LiveSettings, parse_throttle
from specmd.measurement.workload import PromptWorkload, Workload

__all__ = [
    "LiveSettings",
    "Measured",
    "PromptWorkload",
    "Workload",
    "measure",
    "parse_throttle",
]
