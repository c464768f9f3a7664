"""A question's figure, drawn from its committed numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from reproduction.questions import Figure, Numbers, declared, shown
from specmd.report.panels import BOUND, COLOURS

_MARKERS = "osD^vPX*"
_STYLES: tuple[Any, ...] = ("-", "--", ":", "-.")
_MORE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c2d04", "#7b4fb5")


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
                label = " ".join(shown(each) for each in line)
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
                    marker=_MARKERS[number % len(_MARKERS)], markersize=4.5, lw=1.5,
                )  # fmt: skip
            if figure.bound:
                points = sorted(
                    {(places[shown(x)], declared(figure.bound).scaled(y))
                     for x, y in zip(here.rows[figure.x], here.rows[figure.bound], strict=True)}
                )  # fmt: skip
                label = {"belady": "belady (bound without prefetch)"}.get(
                    figure.bound, figure.bound.replace("_", " ").removesuffix(" s")
                )
                (handles[label],) = axes.plot(
                    *zip(*points, strict=True), color=BOUND, ls=":", marker=".", lw=1.2
                )
            axes.set_xticks(list(places.values()), list(places))
            axes.set_title(str(name), fontsize=9)
            axes.set_xlabel(figure.x_label or figure.x)
            if figure.log:
                axes.set_yscale("log")
            else:
                axes.set_ylim(bottom=0)
            axes.grid(axis="y", color="#dddddd", lw=0.6)
            axes.set_axisbelow(True)
        panels[0].set_ylabel(f"{said.label}, simulated")
        canvas.legend(
            handles.values(), handles, loc="outside lower center",
            ncols=min(len(handles), 5 if len(names) > 1 else 2), frameon=False, fontsize=8,
        )  # fmt: skip
        canvas.savefig(path, format="png")


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
    free = (each for each in _MORE if each not in COLOURS.values() or len(lines) > len(COLOURS))
    names = list(dict.fromkeys(line[0].partition(":")[0] for line in lines))
    several = len(names) > 1 or names[0] in COLOURS
    own = {
        name: COLOURS.get(name) or next(free, _MORE[place % len(_MORE)])
        for place, name in enumerate(names)
    }
    for number, line in enumerate(lines):
        name = line[0].partition(":")[0]
        colour = own[name] if several else _MORE[number % len(_MORE)]
        found[line] = colour, _STYLES[taken.count(colour) % len(_STYLES)]
        taken.append(colour)
    return found


def _lines(here: Numbers, figure: Figure) -> list[tuple[str, ...]]:
    columns = here.rows[list(figure.lines)].map(shown)
    return list(dict.fromkeys(map(tuple, columns.to_numpy())))
