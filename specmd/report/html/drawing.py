"""How the figures look: what is on which axis, with which mark, colour and words for the pointer.

A figure takes its rows by name (the page hands them over, files put them in) and its colours from
`Palette`: variables of the page's style sheet, or plain colours.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from specmd.report.html.maps import COUNTS
from specmd.report.html.points import declared
from specmd.report.html.theme import Palette
from specmd.runs.metrics import METRICS, PARTS

if TYPE_CHECKING:
    import altair as alt

ROWS = "rows"
"""Name under which a figure finds its data."""
TICKS = "ticks"
"""Name under which a figure against capacity finds the capacities to write on its axis."""


Draw = Callable[[Palette], Any]
"""Draws a figure as an Altair chart."""


def _chart(palette: Palette, height: Any = 260) -> alt.Chart:
    import altair as alt

    chart = alt.Chart(alt.NamedData(name=ROWS))
    return chart.properties(width=palette.width, height=height)


def _colour(palette: Palette, symbol: str = "circle") -> Any:
    import altair as alt

    scale = alt.Scale(domain=list(palette.lines), range=list(palette.lines.values()))
    return alt.Color("policy:N", scale=scale, legend=_legend(palette, symbol))


def _dash(palette: Palette) -> Any:
    import altair as alt

    scale = alt.Scale(domain=list(palette.dashes), range=[list(d) for d in palette.dashes.values()])
    return alt.StrokeDash("policy:N", scale=scale, legend=_legend(palette, "stroke"))


def _legend(palette: Palette, symbol: str) -> Any:
    import altair as alt

    if not palette.legend:
        return None
    size = 220 if symbol == "stroke" else 80
    return alt.Legend(
        title=None, orient="bottom", columns=2, symbolType=symbol, symbolSize=size,
        symbolStrokeWidth=2, labelLimit=240,
    )  # fmt: skip


def _capacity() -> Any:
    import altair as alt

    return alt.X(
        "share:Q",
        title="capacity (% of all experts)",
        scale=alt.Scale(type="log", nice=False, padding=12),
        axis=alt.Axis(values=alt.ExprRef(TICKS), format=".1~f", grid=False),
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


def curve(name: str) -> Draw:
    """Draw a metric against capacity: lines by composition, dashed bounds, spread of TPOT."""

    def draw(palette: Palette) -> Any:
        import altair as alt

        known = _chart(palette).transform_filter(f"isValid(datum.{name}) && datum.share > 0")
        y = alt.Y(
            f"{name}:Q", title=declared(name).label, scale=alt.Scale(zero=name != "over_roofline")
        )
        line = known.mark_line(strokeWidth=2).encode(
            x=_capacity(), y=y, color=_colour(palette, "stroke"), strokeDash=_dash(palette)
        )
        dots = known.mark_circle(size=64, opacity=1).encode(
            x=_capacity(), y=y, color=_colour(palette, "stroke"), tooltip=_hover(name)
        )
        layers: list[Any] = [line, dots]
        if name == "tpot_s":
            ends = {
                end: f"isValid(datum.{end}) ? datum.{end} : datum.{name}" for end in ("low", "high")
            }
            spread = known.transform_calculate(**ends).mark_rule(strokeWidth=1.5)
            layers.insert(
                0,
                spread.encode(
                    x=_capacity(), y="low:Q", y2="high:Q", color=_colour(palette, "stroke")
                ),
            )
        return alt.layer(*layers).properties(width=palette.width)

    return draw


def _part_scale(palette: Palette) -> Any:
    import altair as alt

    titles = [part.title for part in PARTS.values()]
    scale = alt.Scale(domain=titles, range=[palette.parts[name] for name in PARTS])
    legend = alt.Legend(title=None, orient="bottom", columns=3) if palette.legend else None
    return alt.Color("part:N", scale=scale, legend=legend)


def parts(short: str) -> Draw:
    """Draw bars of a time by its parts, the fastest on top, each with its composition's colour."""
    whole = f"{short}_s"

    def draw(palette: Palette) -> Any:
        import altair as alt

        titles = {f"{short}_{name}_s": part.title for name, part in PARTS.items()}
        known = _chart(palette, alt.Step(22)).transform_filter(f"isValid(datum.{whole})")
        y = alt.Y(
            "policy:N", title=None, sort=alt.EncodingSortField(whole, op="min"),
            axis=alt.Axis(labelLimit=190, ticks=False, domain=False, labelPadding=18),
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
        key = known.mark_square(size=80, opacity=1, xOffset=-10).encode(
            x=alt.datum(0), y=y, color=_colour(replace(palette, legend=False))
        )
        text = known.mark_text(align="left", dx=4, fontSize=11, color=palette.ink).encode(
            x=f"{whole}:Q", y=y, text=alt.Text(f"{whole}:Q", format=",.3~g")
        )
        return alt.layer(bars, key, text).resolve_scale(color="independent")

    return draw


def pareto(across: str, title: str, up: str) -> Draw:
    """Draw points of every capacity; against memory with the front that none beats."""

    def draw(palette: Palette) -> Any:
        import altair as alt

        known = _chart(palette).transform_filter(
            f"isValid(datum.{up}) && isValid(datum.{across}) && datum.bound < 2"
        )
        spelled = "replace(format(1e9 * datum.value, '.3~s'), regexp('([kMGT]?)$'), ' $1B')"
        plain = spelled if across == "gb" else "datum.label"
        x = alt.X(
            f"{across}:Q",
            title=title,
            axis=alt.Axis(grid=False, labelExpr=plain),
            scale=alt.Scale(zero=False),
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


def ranks(palette: Palette) -> Any:
    """Draw ranks by TPOT, a line a composition across devices."""
    import altair as alt

    known = (
        _chart(palette, 280)
        .transform_filter("isValid(datum.tpot_s) && !datum.bound")
        .transform_window(
            rank="row_number()",
            sort=[alt.SortField("tpot_s"), alt.SortField("policy")],
            groupby=["device"],
            frame=[None, None],
        )
    )
    x = alt.X(
        "device:N", title=None, sort=alt.EncodingSortField("place", op="min"),
        axis=alt.Axis(
            labelAngle=0, labelLimit=140, labelExpr="split(replace(datum.label, ')', ''), ' (')"
        ),
        scale=alt.Scale(type="point", padding=0.5),
    )  # fmt: skip
    y = alt.Y(
        "rank:Q", title="rank by TPOT",
        scale=alt.Scale(reverse=True, zero=False, nice=False, padding=14),
        axis=alt.Axis(tickMinStep=1, format="d", labelExpr="datum.value < 1 ? '' : datum.label"),
    )  # fmt: skip
    line = known.mark_line(strokeWidth=2).encode(
        x=x, y=y, color=_colour(palette, "stroke"), strokeDash=_dash(palette)
    )
    dots = known.mark_circle(size=110, opacity=1).encode(
        x=x, y=y, color=_colour(palette, "stroke"),
        tooltip=["policy:N", "device:N", alt.Tooltip("rank:Q"),
                 alt.Tooltip("tpot_s:Q", title=METRICS["tpot_s"].label, format=",.4~g")],
    )  # fmt: skip
    names = (
        known.transform_joinaggregate(last="max(place)")
        .transform_filter("datum.place == datum.last")
        .mark_text(align="left", dx=10, fontSize=11, limit=120, color=palette.ink)
        .encode(x=x, y=y, text="policy:N")
    )
    return alt.layer(line, dots, names)


def step(palette: Palette) -> Any:
    """Draw the stretches of one step after another, a row a composition."""
    import altair as alt

    return (
        _chart(palette, alt.Step(26))
        .mark_bar(stroke=palette.ink, strokeWidth=0.3, strokeOpacity=0.5)
        .encode(
            x=alt.X("start:Q", title="time in the step (ms)"),
            x2="end:Q",
            y=alt.Y(
                "policy:N",
                title=None,
                sort=alt.EncodingSortField("end", op="max"),
                axis=alt.Axis(labelLimit=150, ticks=False),
            ),
            color=_part_scale(palette),
            tooltip=["policy:N", "layer:Q", "part:N", alt.Tooltip("ms:Q", format=",.3~g")],
        )
    )


def heat(name: str, title: str, scheme: str) -> Draw:
    """Draw a value by layer and expert."""

    def draw(palette: Palette) -> Any:
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
                    *(alt.Tooltip(f"{count}:Q", format=",") for count in COUNTS),
                    alt.Tooltip(f"{name}:Q", title=title, format=",.4~g"),
                ],
            )
        )  # fmt: skip

    return draw
