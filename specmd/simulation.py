"""Simulate: a trace and a configuration in, a `Run` out."""

from __future__ import annotations

from os import PathLike

from specmd.config import Admission, Reset, RunConfig, Scope
from specmd.results import Run
from specmd.trace import Trace


def simulate(
    trace: Trace | str | PathLike[str],
    evict: str = "lru",
    capacity: int | str = "5%",
    scope: Scope = "global",
    prefetch: str = "none",
    schedule: str = "fifo",
    miss: str = "overlap",
    route: str = "none",
    allocate: str = "uniform",
    admission: Admission = "forced",
    reset: Reset = "none",
    sequential: bool = False,
    warmup: int = 0,
    tokens: int | None = None,
    seed: int = 0,
    profile: str | None = None,
    shape: str | None = None,
    bounds: bool = True,
    training: Trace | str | PathLike[str] | None = None,
    interpreted: bool = False,
) -> Run:
    """Simulate one cache over a trace; raises SpecmdError for anything that cannot be run."""
    raise NotImplementedError


def run_config(
    trace: Trace,
    config: RunConfig,
    *,
    name: str = "",
    training: Trace | None = None,
    bounds: bool = True,
    interpreted: bool = False,
) -> Run:
    """Run one expanded configuration (see specmd.grid); raises SpecmdError."""
    raise NotImplementedError


def try_config(
    trace: Trace,
    config: RunConfig,
    *,
    name: str = "",
    training: Trace | None = None,
    bounds: bool = True,
    interpreted: bool = False,
) -> Run:
    """Run one configuration; what cannot be run is a `skipped` or `failed` Run with its reason."""
    raise NotImplementedError
