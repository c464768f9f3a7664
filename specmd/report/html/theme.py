"""Colours of a report: one a policy, the same in every figure, and those of the parts of a step.

The page names them as variables, so that light, dark and print are a matter of its style sheet;
files have them as they are in the light. In the dark a policy keeps its hue and is lifted until it
can be seen, dark ones less than light ones; parts are greys and change places, so that waiting
still stands out.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from specmd.report.panels import colour
from specmd.runs.metrics import PARTS
from specmd.runs.run import Run

INK = "#1b1f24"
INK_DARK = "#e8eaed"
_DASHES: tuple[tuple[int, ...], ...] = (
    *((), (7, 3), (2, 3), (9, 3, 2, 3), (4, 2), (1, 4), (12, 3), (6, 2, 1, 2, 1, 2)),
)
BOUND_DASHES: tuple[tuple[int, ...], ...] = ((2, 2), (6, 3), (1, 3), (9, 2, 2, 2), (4, 4))
_GOLDEN = 0.381966  # of a turn: hues so far apart never meet


@dataclass(frozen=True)
class Palette:
    """Colours and dashes by composition or bound, and colours by part."""

    lines: Mapping[str, str]
    dashes: Mapping[str, Sequence[int]]
    parts: Mapping[str, str]
    ink: str
    legend: bool
    width: int | Literal["container"]


def policy_colours(runs: Sequence[Run]) -> dict[str, str]:
    """Give every eviction policy the colour it has in other figures; two never share one."""
    found: dict[str, str] = {}
    taken = {part.colour for part in PARTS.values()}
    for run in sorted(runs, key=lambda run: run.config.evict):
        name = run.config.evict.partition(":")[0]
        if name in found:
            continue
        own = colour(run)
        turn = 0.0
        while own in taken:
            turn += _GOLDEN
            own = _hex(turn % 1, 0.42, 0.62)
        found[name] = own
        taken.add(own)
    return found


def dashes(evicts: Sequence[str]) -> list[tuple[int, ...]]:
    """Return a dash for each composition: those of one eviction policy differ in it."""
    found = []
    for number, evict in enumerate(evicts):
        found.append(_DASHES[list(evicts[:number]).count(evict) % len(_DASHES)])
    return found


def lifted(shade: str) -> str:
    """Return a colour as it is in the dark: its hue, lighter."""
    hue, light, saturation = _hls(shade)
    if saturation < 0.05:
        return INK_DARK
    return _hex(hue, 0.42 + 0.62 * light, min(saturation, 0.8))


def turned(shade: str) -> str:
    """Return a grey of the dark for one of the light: what was dark there is light here."""
    hue, light, saturation = _hls(shade)
    return _hex(hue, 0.98 - 0.8 * light, saturation * 0.6)


def _hls(shade: str) -> tuple[float, float, float]:
    if not shade.startswith("#"):
        return 0.0, 0.0, 0.0  # black, by name
    red, green, blue = (int(shade[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return colorsys.rgb_to_hls(red, green, blue)


def _hex(hue: float, light: float, saturation: float) -> str:
    channels = colorsys.hls_to_rgb(hue, light, saturation)
    return "#" + "".join(f"{round(255 * each):02x}" for each in channels)
