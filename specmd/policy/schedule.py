"""The options that schedule and miss-handling policies choose among."""

from __future__ import annotations

from typing import NamedTuple


class Schedule(NamedTuple):
    """How prefetches share the link; demand always goes first, at chunk boundaries."""

    by_score: bool  # best score first, instead of in order of issue
    guard: bool  # a prefetch may not evict a prefetch due no later, and still unused
    cancel: bool  # drop queued prefetches that the true routing proved wrong


class MissHandling(NamedTuple):
    """What a layer does while a demanded expert is not there."""

    blocks: bool  # compute nothing before all experts have arrived
    host_tokens: int = 0  # a missing expert of so many tokens or fewer is computed on the host
