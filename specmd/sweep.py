"""Sweep: a grid over traces, in parallel, resumable, one file a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Literal

from specmd.config import RunConfig
from specmd.grid import Grid
from specmd.results import Run

Rerun = Literal["none", "failed", "all"]


@dataclass(frozen=True)
class Job:
    """One run of a sweep: which trace file, which configuration, and the name of its result."""

    trace: str
    config: RunConfig
    run_id: str


@dataclass(frozen=True)
class Tally:
    """What a sweep did. `existing` runs were there before and left alone."""

    done: int = 0
    skipped: int = 0
    failed: int = 0
    existing: int = 0
    interrupted: bool = False


def plan(
    traces: Sequence[str | PathLike[str]],
    grid: Grid,
    *,
    training: str | PathLike[str] | None = None,
    bounds: bool = True,
    shard: tuple[int, int] = (1, 1),
) -> list[Job]:
    """List the runs of a sweep in order, without running any (`--dry-run`)."""
    raise NotImplementedError


def sweep(
    traces: Sequence[str | PathLike[str]],
    grid: Grid,
    out: str | PathLike[str],
    *,
    training: str | PathLike[str] | None = None,
    bounds: bool = True,
    rerun: Rerun = "none",
    shard: tuple[int, int] = (1, 1),
    workers: int | None = None,
    plugins: Sequence[str | PathLike[str]] = (),
    on_result: Callable[[Run, int, int], None] | None = None,
) -> Tally:
    """Run a grid over traces on all cores; `on_result(run, finished, total)` after each."""
    raise NotImplementedError
