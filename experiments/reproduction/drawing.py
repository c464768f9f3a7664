"""A question's figure, drawn from its committed numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from reproduction.questions import Figure, Numbers, declared, shown
from specmd.report.panels import BOUND, COLOURS

_MARKERS = "osD^vPX*"
_BOUNDS = {
    "belady": "belady (bound without prefetch)",
    "all_resident_tpot_s": "all experts resident",
    "all_resident_ttft_s": "all experts resident",
}
_STYLES: tuple[Any, ...] = ("-", "--", ":", "-.")
_MORE = ("#4b2e83", "#ff6f59", "#005f56", "#c2185b", "#795548")
"""For lines that are no policies of eviction: the colours of none of those."""


def draw(figure: Figure, rows: pd.DataFrame, path: Path) -> None:
    """Draw lines, a panel a value of `panels`; without the date, so alike numbers, alike files."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    kept = Numbers(rows).where(**(figure.where or {}))
    names = kept.each(figure.panels)
    said = declared(figure.metric)
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        canvas = Canvas(figsize=(1.0 + 3.6 * len(names), 3.9), layout="constrained", dpi=130)
        panels = canvas.subplots(1, len(names), squeeze=False, sharey=figure.alike)[0]
        handles: dict[str, object] = {}
        looks = _looks(_lines(kept, figure))
        for axes, name in zip(panels, names, strict=True):
            here = kept.where(**{figure.panels: name})
            places = _places(here, figure.x)
            for number, line in enumerate(_lines(here, figure)):
                of_line = here.where(**dict(zip(figure.lines, line, strict=True))).rows
                label = " ".join(figure.ticks.get(each, each) for each in line)
                points = sorted(
                    (places[shown(x)], said.scaled(y))
                    for x, y in zip(of_line[figure.x], of_line[figure.metric], strict=True)
                    if not pd.isna(y)
                )
                if not points:
                    continue
                colour, style = looks[line]
                (handles[label],) = axes.plot(
                    *zip(*points, strict=True), color=colour, ls=style, zorder=3 - number / 100,
                    marker=_MARKERS[number % len(_MARKERS)], markersize=4.5, lw=1.5, clip_on=False,
                )  # fmt: skip
            if figure.bound:
                points = sorted(
                    {(places[shown(x)], declared(figure.bound).scaled(y))
                     for x, y in zip(here.rows[figure.x], here.rows[figure.bound], strict=True)}
                )  # fmt: skip
                label = _BOUNDS[figure.bound]
                (handles[label],) = axes.plot(
                    *zip(*points, strict=True), color=BOUND, ls=":", marker=".", lw=1.2
                )
            axes.set_xticks(list(places.values()), [figure.ticks.get(x, x) for x in places])
            axes.set_title(str(name), fontsize=9)
            axes.set_xlabel(figure.x_label or figure.x)
            axes.grid(axis="y", color="#dddddd", lw=0.6)
            axes.set_axisbelow(True)
        for axes in panels:
            if figure.log:
                _count_plainly(axes)
            else:
                axes.set_ylim(bottom=0)
        if figure.title:
            canvas.suptitle(figure.title, fontsize=10, fontweight="bold", x=0.01, ha="left")
        panels[0].set_ylabel(f"{said.label}, simulated")
        canvas.legend(
            handles.values(), handles, loc="outside lower center",
            ncols=min(len(handles), 5 if len(names) > 1 else 2), frameon=False, fontsize=8,
        )  # fmt: skip
        canvas.savefig(path, format="png")


def _count_plainly(axes: Any) -> None:
    """Make an axis of values logarithmic, with ticks at 1, 2 and 5 that are written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _places(here: Numbers, name: str) -> dict[str, int]:
    """Places of the values of an axis, one beside the other: they are few, and seldom even."""
    values = here.each(name)

    def size(value: object) -> float:
        text = shown(value).rstrip("%")
        try:
            return float(text)
        except ValueError:
            return 0.0

    ordered = sorted(values, key=size)
    return {shown(value): place for place, value in enumerate(ordered)}


def _looks(lines: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], tuple[str, Any]]:
    """Give each line the colour of its policy and, where several share it, a style."""
    found: dict[tuple[str, ...], tuple[str, Any]] = {}
    taken: list[str] = []
    for number, line in enumerate(lines):
        name = line[0].partition(":")[0]
        colour = COLOURS.get(name) or _MORE[number % len(_MORE)]
        found[line] = colour, _STYLES[taken.count(colour) % len(_STYLES)]
        taken.append(colour)
    return found


def _lines(here: Numbers, figure: Figure) -> list[tuple[str, ...]]:
    columns = here.rows[list(figure.lines)].map(shown)
    return list(dict.fromkeys(map(tuple, columns.to_numpy())))
