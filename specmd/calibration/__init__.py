"""Calibration: measure this machine with the engine's own parts, and write a hardware profile."""

from specmd.calibration.calibrating import Calibration, calibrate

__all__ = ["Calibration", "calibrate"]
