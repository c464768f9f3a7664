"""Runs beside runs: what differs between commits, machines and devices, and how surely."""

from specmd.comparison.comparing import Comparison, compare

__all__ = ["Comparison", "compare"]
