"""The figures, each defined once, for the page and for files.

A figure takes its rows by name (the page hands them over, files put them in) and its colours from
`Palette`: variables of the page's style sheet, or plain colours. What a figure needs of its rows is
in `Figure`; one whose rows are empty is not drawn, and says why.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from specmd.report.html.points import CURVES, SPLIT, declared
from specmd.runs.metrics import METRICS, PARTS

if TYPE_CHECKING:
    import altair as alt

ROWS = "rows"
"""Name under which a figure finds its data."""

Shape = Literal["points", "capacity", "devices", "map", "steps"]
"""Which rows: of a scene, at one capacity, there on all devices, one run's experts, its step."""


@dataclass(frozen=True)
class Palette:
    """Colours and dashes by composition or bound, and colours by part."""

    lines: Mapping[str, str]
    dashes: Mapping[str, Sequence[int]]
    parts: Mapping[str, str]
    ink: str
    legend: bool
    width: int | Literal["container"]


@dataclass(frozen=True)
class Figure:
    """A figure before it has rows."""

    name: str
    title: str
    says: str
    shape: Shape
    needs: str
    draw: Callable[[Palette], alt.TopLevelMixin]
    wide: bool = False
    absent: str = "Not known for these runs."


def figures(quality: Sequence[str] = ()) -> list[Figure]:
    """List the figures in the order of the report."""
    found = [
        Figure(
            f"{name.removesuffix('_s')}_by_capacity",
            f"{declared(name).title} against capacity",
            f"{_capital(declared(name).formula)}. {_direction(declared(name).better)}",
            "points",
            name,
            _curve(name),
        )
        for name in CURVES
    ]
    for short in SPLIT:
        title = METRICS[f"{short}_s"].title
        found.append(
            Figure(
                f"{short}_parts",
                f"{title} by part",
                "Greys are parts of the time, the dark ones are waiting. They add up to the whole, "
                "which stands at the end.",
                "capacity",
                f"{short}_s",
                _parts(short),
            )
        )
    found.append(
        Figure(
            "pareto",
            "Speed against memory",
            "Every composition at every capacity. The line joins those that none beats in both.",
            "points",
            "tokens_per_s",
            _pareto("gb", "memory of the slots (GB)", "tokens_per_s"),
        )
    )
    for name in quality:
        found.append(
            Figure(
                f"pareto_{name}",
                f"{METRICS[name].title} against speed",
                f"{_capital(METRICS[name].formula)}. Lossy runs only.",
                "points",
                name,
                _pareto("tokens_per_s", METRICS["tokens_per_s"].label, name),
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
            _ranks,
        ),
        Figure(
            "step",
            "A decode step, layer by layer",
            "One step of median duration, from its first layer on the left to its last. "
            "Dark is waiting.",
            "steps",
            "end",
            _step,
            wide=True,
        ),
        Figure(
            "expert_hits",
            "Hit rate by layer and expert",
            "Of the times a layer asked for an expert. Empty: never asked for.",
            "map",
            "hit_rate",
            _heat("hit_rate", "hit rate (%)", "viridis"),
        ),
        Figure(
            "expert_traffic",
            "Traffic by layer and expert",
            "Transfers on demand and ahead, in bytes.",
            "map",
            "traffic",
            _heat("traffic", "traffic (MB)", "inferno"),
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


def _chart(palette: Palette, height: Any = 260) -> alt.Chart:
    import altair as alt

    chart = alt.Chart(alt.NamedData(name=ROWS))
    return chart.properties(width=palette.width, height=height)


def _colour(palette: Palette) -> Any:
    import altair as alt

    scale = alt.Scale(domain=list(palette.lines), range=list(palette.lines.values()))
    legend = alt.Legend(title=None, orient="bottom", columns=2) if palette.legend else None
    return alt.Color("policy:N", scale=scale, legend=legend)


def _dash(palette: Palette) -> Any:
    import altair as alt

    scale = alt.Scale(domain=list(palette.dashes), range=[list(d) for d in palette.dashes.values()])
    legend = alt.Legend(title=None, orient="bottom", columns=2) if palette.legend else None
    return alt.StrokeDash("policy:N", scale=scale, legend=legend)


def _capacity() -> Any:
    import altair as alt

    ticks = [0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 15, 20, 30, 40, 60, 80, 100]
    return alt.X(
        "share:Q",
        title="capacity (% of all experts)",
        scale=alt.Scale(type="log", nice=False, padding=12),
        axis=alt.Axis(values=ticks, format="~g", grid=False),
    )


def _hover(name: str) -> list[Any]:
    """Say what a point is when the pointer is on it."""
    import altair as alt

    return [
        alt.Tooltip("policy:N"),
        alt.Tooltip("slots:Q", title="slots", format=","),
        alt.Tooltip("share:Q", title="% of all experts", format=".3~g"),
        alt.Tooltip("gb:Q", title="GB", format=".3~g"),
        alt.Tooltip(f"{name}:Q", title=declared(name).label, format=",.4~g"),
    ]


def _curve(name: str) -> Callable[[Palette], alt.TopLevelMixin]:
    def draw(palette: Palette) -> alt.TopLevelMixin:
        import altair as alt

        known = _chart(palette).transform_filter(f"isValid(datum.{name}) && datum.share > 0")
        y = alt.Y(
            f"{name}:Q", title=declared(name).label, scale=alt.Scale(zero=name != "over_roofline")
        )
        line = known.mark_line(strokeWidth=2, interpolate="monotone").encode(
            x=_capacity(), y=y, color=_colour(palette), strokeDash=_dash(palette)
        )
        dots = known.mark_circle(size=64, opacity=1).encode(
            x=_capacity(), y=y, color=_colour(palette), tooltip=_hover(name)
        )
        layers: list[Any] = [line, dots]
        if name == "tpot_s":
            ends = {
                end: f"isValid(datum.{end}) ? datum.{end} : datum.{name}" for end in ("low", "high")
            }
            spread = known.transform_calculate(**ends).mark_rule(strokeWidth=1.5)
            layers.insert(
                0, spread.encode(x=_capacity(), y="low:Q", y2="high:Q", color=_colour(palette))
            )
        return alt.layer(*layers).properties(width=palette.width)

    return draw


def _part_scale(palette: Palette) -> Any:
    import altair as alt

    titles = [part.title for part in PARTS.values()]
    scale = alt.Scale(domain=titles, range=[palette.parts[name] for name in PARTS])
    return alt.Color(
        "part:N", scale=scale, legend=alt.Legend(title=None, orient="bottom", columns=3)
    )


def _parts(short: str) -> Callable[[Palette], alt.TopLevelMixin]:
    whole = f"{short}_s"

    def draw(palette: Palette) -> alt.TopLevelMixin:
        import altair as alt

        titles = {f"{short}_{name}_s": part.title for name, part in PARTS.items()}
        known = _chart(palette, alt.Step(22)).transform_filter(f"isValid(datum.{whole})")
        y = alt.Y(
            "policy:N", title=None, sort=alt.EncodingSortField(whole, op="min"),
            axis=alt.Axis(labelLimit=190, ticks=False, domain=False, labelPadding=14),
        )  # fmt: skip
        bars = (
            known.transform_fold(list(titles), as_=["column", "value"])
            .transform_filter("datum.value > 0")
            .transform_calculate(
                part=f"({json.dumps(titles)})[datum.column]",
                place=f"indexof({json.dumps(list(titles))}, datum.column)",
            )
            .mark_bar(stroke=palette.ink, strokeWidth=0.5, strokeOpacity=0.45)
            .encode(
                x=alt.X("value:Q", title=METRICS[whole].label, stack="zero"),
                y=y,
                color=_part_scale(palette),
                order=alt.Order("place:Q"),
                tooltip=[
                    alt.Tooltip("policy:N"),
                    alt.Tooltip("part:N"),
                    alt.Tooltip("value:Q", title="ms", format=",.4~g"),
                    alt.Tooltip(f"{whole}:Q", title=METRICS[whole].label, format=",.4~g"),
                ],
            )
        )
        key = known.mark_square(size=90, opacity=1, xOffset=-8, clip=False).encode(
            x=alt.datum(0), y=y, color=_colour(_silent(palette))
        )
        text = known.mark_text(align="left", dx=4, fontSize=11, color=palette.ink).encode(
            x=f"{whole}:Q", y=y, text=alt.Text(f"{whole}:Q", format=",.3~g")
        )
        return alt.layer(bars, key, text).resolve_scale(color="independent")

    return draw


def _pareto(across: str, title: str, up: str) -> Callable[[Palette], alt.TopLevelMixin]:
    def draw(palette: Palette) -> alt.TopLevelMixin:
        import altair as alt

        known = _chart(palette).transform_filter(f"isValid(datum.{up}) && isValid(datum.{across})")
        x = alt.X(
            f"{across}:Q", title=title, axis=alt.Axis(grid=False), scale=alt.Scale(zero=False)
        )
        y = alt.Y(f"{up}:Q", title=METRICS[up].label)
        dots = known.mark_circle(size=58, opacity=0.9).encode(
            x=x, y=y, color=_colour(palette), tooltip=_hover(up)
        )
        if across != "gb":
            return dots
        front = known.transform_filter("datum.front == 1").mark_line(
            interpolate="step-after", color=palette.ink, strokeWidth=1.2, opacity=0.6
        )
        return alt.layer(front.encode(x=x, y=y), dots)

    return draw


def _ranks(palette: Palette) -> alt.TopLevelMixin:
    import altair as alt

    known = (
        _chart(palette, 280)
        .transform_filter("isValid(datum.tpot_s) && !datum.bound")
        .transform_window(
            rank="rank()", sort=[alt.SortField("tpot_s")], groupby=["device"], frame=[None, None]
        )
    )
    x = alt.X(
        "device:N", title=None, sort=alt.EncodingSortField("place", op="min"),
        axis=alt.Axis(labelAngle=0, labelLimit=140, labelExpr="split(datum.label, ' on ')"),
        scale=alt.Scale(type="point", padding=0.25),
    )  # fmt: skip
    y = alt.Y(
        "rank:Q", title="rank by TPOT", scale=alt.Scale(reverse=True, zero=False, padding=14),
        axis=alt.Axis(tickMinStep=1, format="d"),
    )  # fmt: skip
    line = known.mark_line(strokeWidth=2).encode(
        x=x, y=y, color=_colour(palette), strokeDash=_dash(palette)
    )
    dots = known.mark_circle(size=110, opacity=1).encode(
        x=x, y=y, color=_colour(palette),
        tooltip=["policy:N", "device:N", alt.Tooltip("rank:Q"),
                 alt.Tooltip("tpot_s:Q", title=METRICS["tpot_s"].label, format=",.4~g")],
    )  # fmt: skip
    return alt.layer(line, dots)


def _step(palette: Palette) -> alt.TopLevelMixin:
    import altair as alt

    return (
        _chart(palette, alt.Step(26))
        .mark_bar(stroke=palette.ink, strokeWidth=0.3, strokeOpacity=0.5)
        .encode(
            x=alt.X("start:Q", title="time in the step (ms)"),
            x2="end:Q",
            y=alt.Y("policy:N", title=None, sort=None, axis=alt.Axis(labelLimit=150, ticks=False)),
            color=_part_scale(palette),
            tooltip=["policy:N", "layer:Q", "part:N", alt.Tooltip("ms:Q", format=",.3~g")],
        )
    )


def _heat(name: str, title: str, scheme: str) -> Callable[[Palette], alt.TopLevelMixin]:
    def draw(palette: Palette) -> alt.TopLevelMixin:
        import altair as alt

        scale = (
            alt.Scale(scheme=scheme, domain=[0, 100])
            if name == "hit_rate"
            else alt.Scale(scheme=scheme)
        )
        legend = alt.Legend(title=title, orient="bottom", gradientThickness=10)
        return (
            _chart(palette, 260)
            .transform_filter(f"isValid(datum.{name})")
            .mark_rect()
            .encode(
                x=alt.X("expert:O", title="expert", axis=alt.Axis(labelAngle=0, ticks=False)),
                y=alt.Y("layer:O", title="layer", axis=alt.Axis(ticks=False)),
                color=alt.Color(f"{name}:Q", scale=scale, legend=legend),
                tooltip=[
                    *("layer:O", "expert:O"),
                    *(alt.Tooltip(f"{n}:Q", format=",") for n in ("asked", "missed", "late", "prefetched")),
                    alt.Tooltip(f"{name}:Q", title=title, format=",.4~g"),
                ],
            )
        )  # fmt: skip

    return draw


def _silent(palette: Palette) -> Palette:
    """Return a palette that draws no legend."""
    return Palette(palette.lines, palette.dashes, palette.parts, palette.ink, False, palette.width)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _direction(better: str) -> str:
    return {"higher": "Higher is better.", "lower": "Lower is better."}.get(better, "")
