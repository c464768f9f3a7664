"""The options that schedule policies choose among."""

from __future__ import annotations

from typing import NamedTuple


class Schedule(NamedTuple):
    """How prefetches share the link; demand always goes first, at chunk boundaries."""

    by_score: bool  # best score first, instead of in order of issue
    guard: bool  # a prefetch may not evict a prefetch due no later, and still unused
    cancel: bool  # drop queued prefetches that the true routing proved wrong
