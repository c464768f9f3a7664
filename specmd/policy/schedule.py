"""The options that schedule policies choose among."""

from __future__ import annotations

from typing import NamedTuple


class Schedule(NamedTuple):
    """How prefetches share the link; demand always goes first, at chunk boundaries."""

    by_score: bool  # best score first, instead of in order of issue
    guard: bool  # a prefetch may not evict a prefetch due no later, and still unused
    cancel: bool  # drop queued prefetches that the true routing proved wrong
    by_deadline: bool = False  # what is due first goes first, then by score
    drop_late: bool = False  # do not issue what is expected to arrive after it is due
    share: float = 1.0  # of the link's time that prefetches may take
    budget: int = 0  # prefetches issued in a step at most; 0: no limit
    staging: int = 0  # slots that hold prefetches, and no others, until they are used; 0: none
