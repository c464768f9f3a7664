"""What a reader must know before trusting the clock of a measured run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Protocol

from specmd.live import Report
from specmd.runs.run import BUSY_SHARE

_UNEVEN = 0.10  # a spread above this share of the mean is worth a word
_SLOW_FIRST = 1.25


class Play(Protocol):
    """What is asked of a counted play."""

    @property
    def total_s(self) -> float: ...  # noqa: D102 - of all its steps
    @property
    def core_share(self) -> float: ...  # noqa: D102 - of a core, that its thread was given


def doubts(plays: Sequence[Play], report: Report, paced: tuple[float, float] | None) -> list[str]:
    """List what a reader must know before trusting the clock."""
    found = []
    totals = [play.total_s for play in plays]
    if len(totals) == 1:
        found.append("measured once: no spread; raise --repetitions")
    else:
        mean = statistics.fmean(totals)
        if statistics.stdev(totals) > _UNEVEN * mean:
            share = statistics.stdev(totals) / mean
            found.append(f"repetitions differ by {share:.0%} (standard deviation): a busy machine?")
        if totals[0] > _SLOW_FIRST * max(totals[1:]):
            found.append("the first repetition was the slowest by far: raise --warmup-runs")
    shares = [play.core_share for play in plays]
    if report.link == "cpu" and statistics.median(shares) < BUSY_SHARE:
        found.append(
            f"a busy machine: the computing thread was given {min(shares):.0%} to "
            f"{max(shares):.0%} of a core, and its times are too long by that"
        )
    if report.unloaded_bytes_per_s is not None:
        locked = f", {report.locked_bytes / 1e9:.3g} GB locked" if report.locked_bytes else ""
        found.append(
            f"the link carries {report.unloaded_bytes_per_s / 1e9:.3g} GB/s when nothing else "
            f"runs, {report.pinned_share:.0%} of the experts are pinned{locked}"
        )
    if report.link == "accelerator" and report.pinned_share < 1:
        why = f" ({report.pin_failure})" if report.pin_failure else ""
        found.append(
            f"{1 - report.pinned_share:.0%} of the experts are in pageable memory{why}: their "
            "copies pass through a staging buffer"
        )
    if paced is not None and report.link_bytes_per_s is not None:
        achieved = report.link_bytes_per_s
        if achieved < 0.7 * paced[0]:
            found.append(
                f"the link carried {achieved / 1e9:.3g} GB/s while busy, of the "
                f"{paced[0] / 1e9:.3g} GB/s it was paced to: latency, or a slow machine"
            )
    return found
