"""The figures of a report: what each is called, says and needs, and its Vega-Lite definition.

Each is defined once, for the page and for files. One whose rows lack what it needs is not drawn,
and says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from specmd.report.html.drawing import (
    ROWS,
    TICKS,
    Draw,
    curve,
    heat,
    pareto,
    parts,
    ranks,
    step,
)
from specmd.report.html.points import CURVES, SPLIT, declared
from specmd.report.html.theme import Palette
from specmd.runs.metrics import METRICS, Metric

Shape = Literal["points", "capacity", "devices", "map", "steps"]
"""Which rows: of a scene, at one capacity, there on all devices, one run's experts, its step."""

_NO_CLOCK = "These runs have no clock (--profile)."
_NO_DETAILS = "Nothing by expert is kept beside these runs, or the page had no room for it."
_WITHOUT = {
    "hit_rate": "There is no hit rate.",
    "bytes_per_token": "The size of an expert is not known.",
    "regret": "These runs have no bounds, or prefetch: a late hit is no miss.",
    "over_roofline": "The roofline needs bounds and the clock of a profile.",
    "ttft_s": "No whole prompt is recorded and counted.",
}


@dataclass(frozen=True)
class Figure:
    """A figure before it has rows."""

    name: str
    title: str
    says: str
    shape: Shape
    needs: str
    draw: Draw
    wide: bool = False
    absent: str = ""


def figures(quality: Sequence[str] = ()) -> list[Figure]:
    """List the figures in the order of the report."""
    found = [
        Figure(
            f"{name.removesuffix('_s')}_by_capacity",
            f"{_capital(declared(name).title)} against capacity",
            _says(declared(name)),
            "points",
            name,
            curve(name),
            absent=_WITHOUT.get(name, _NO_CLOCK),
        )
        for name in CURVES
    ]
    for short in SPLIT:
        title = METRICS[f"{short}_s"].title
        found.append(
            Figure(
                f"{short}_parts",
                f"{title} by part",
                "Greys are parts of the time, the strongest are waiting. They add up to the whole, "
                "which stands at the end.",
                "capacity",
                f"{short}_s",
                parts(short),
                absent=_WITHOUT.get(f"{short}_s", _NO_CLOCK),
            )
        )
    found.append(
        Figure(
            "pareto",
            "Speed against memory",
            "Every composition at every capacity. The line joins those that none beats in both. "
            "Belady, where its time is known, is a bound above them.",
            "points",
            "tokens_per_s",
            pareto("gb", "memory of the slots", "tokens_per_s"),
            absent=f"{_NO_CLOCK} Or the size of an expert is not known.",
        )
    )
    for name in quality:
        found.append(
            Figure(
                f"pareto_{name}",
                f"{_capital(METRICS[name].title)} against speed",
                f"{_says(METRICS[name])} Lossy runs only.",
                "points",
                name,
                pareto("tokens_per_s", METRICS["tokens_per_s"].label, name),
                absent="No run here measured it.",
            )
        )
    found += [
        Figure(
            "devices",
            "Ranks across devices",
            "1 is the fastest at the chosen capacity. Lines that cross are policies that change "
            "places between devices.",
            "devices",
            "tpot_s",
            ranks,
            absent="Only one device ran this trace in this setting.",
        ),
        Figure(
            "step",
            "A decode step, layer by layer",
            "One step of median duration, from its first layer on the left to its last. "
            "The strongest greys are waiting.",
            "steps",
            "end",
            step,
            wide=True,
            absent=_NO_DETAILS,
        ),
        Figure(
            "expert_hits",
            "Hit rate by layer and expert",
            "Of the times a layer asked for an expert. Empty: never asked for.",
            "map",
            "hit_rate",
            heat("hit_rate", "hit rate (%)", "viridis"),
            absent=_NO_DETAILS,
        ),
        Figure(
            "expert_traffic",
            "Traffic by layer and expert",
            "What was moved on demand and ahead of it.",
            "map",
            "traffic",
            heat("traffic", "traffic (MB)", "inferno"),
            absent=_NO_DETAILS,
        ),
    ]
    return found


def spec(figure: Figure, palette: Palette) -> dict[str, Any]:
    """Return the Vega-Lite definition of a figure, without data."""
    chart = figure.draw(palette)
    found: dict[str, Any] = chart.to_dict(validate=False)
    for unused in ("datasets", "$schema", "usermeta"):
        found.pop(unused, None)
    found["data"] = {"name": ROWS}
    found["description"] = f"{figure.title}. {figure.says}"
    found["config"] = _config(palette)
    if figure.shape == "points":
        found["params"] = [{"name": TICKS, "value": []}]
    if palette.width == "container":
        found["autosize"] = {"type": "fit-x", "contains": "padding"}
    return found


def _config(palette: Palette) -> dict[str, Any]:
    ink = palette.ink
    words = {"labelColor": ink, "titleColor": ink, "titleFontWeight": 500}
    return {
        "background": None if palette.width == "container" else "white",
        "font": "system-ui, -apple-system, 'Segoe UI', sans-serif",
        "view": {"stroke": None},
        "axis": {
            **words, "domainColor": ink, "domainOpacity": 0.35, "gridColor": ink,
            "gridOpacity": 0.12, "tickColor": ink, "tickOpacity": 0.35, "labelFontSize": 11,
            "titleFontSize": 11, "labelOverlap": True,
        },
        "legend": {**words, "labelFontSize": 11, "titleFontSize": 11, "labelLimit": 320},
        "title": {"color": ink},
        "text": {"color": ink},
    }  # fmt: skip


def _capital(text: str) -> str:
    """Begin a title, unless with a symbol: `x roofline` stays."""
    return text if text[1:2] == " " else text[:1].upper() + text[1:]


def _says(metric: Metric) -> str:
    better = f"{metric.better.capitalize()} is better: " if metric.better != "neither" else ""
    return f"{better}{metric.formula}."
