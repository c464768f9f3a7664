"""Devices side by side: who wins on which, and which policies change places between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from specmd.report.html.answers import size
from specmd.report.html.scenes import Scene
from specmd.report.panels import three_digits

ALIKE = 0.01
"""Times that differ by less are not told apart when ranks are compared."""


@dataclass(frozen=True)
class Across:
    """Winners of one trace and setting at a capacity, by device, and how ranks differ."""

    slots: int
    size: str
    winners: Mapping[str, tuple[str, str]]
    changes: bool
    turned: str


def across_devices(scenes: Sequence[Scene]) -> dict[tuple[str, str], list[Across]]:
    """Compare devices: at each capacity that two or more of them have, who wins on which."""
    groups: dict[tuple[str, str], list[Scene]] = {}
    for scene in scenes:
        if scene.timed:
            groups.setdefault((scene.trace, scene.setting), []).append(scene)
    found = {}
    for key, members in groups.items():
        if len(members) < 2:
            continue
        rows = []
        for slots in sorted({slots for scene in members for slots in scene.leaders}):
            here = [scene for scene in members if slots in scene.leaders]
            if len(here) > 1:
                rows.append(_across(here, slots))
        if rows:
            found[key] = rows
    return found


def _across(here: Sequence[Scene], slots: int) -> Across:
    winners = {}
    for scene in here:
        best, name = scene.leaders[slots][0]
        winners[scene.device] = (name, f"{three_digits(1e3 * best)} ms")
    pairs = turned = 0
    for place, one in enumerate(here):
        for other in here[place + 1 :]:
            ours, theirs = (
                {name: each for each, name in scene.leaders[slots]} for scene in (one, other)
            )
            both = [name for name in ours if name in theirs]
            for i, first in enumerate(both):
                for second in both[i + 1 :]:
                    pairs += 1
                    turned += _apart(ours, first, second) * _apart(theirs, first, second) < 0
    return Across(
        slots,
        size(here[0], slots),
        winners,
        len({name for name, _ in winners.values()}) > 1,
        f"{turned} of {pairs}",
    )


def _apart(times: Mapping[str, float], first: str, second: str) -> int:
    """Say which of two is faster, 0 if they are alike."""
    a, b = times[first], times[second]
    if abs(a - b) <= ALIKE * min(a, b):
        return 0
    return -1 if a < b else 1
