"""The figures of a report as files: what the page shows of every scene at first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specmd.files import replacing
from specmd.report.html.charts import Figure, figures, spec
from specmd.report.html.drawing import ROWS
from specmd.report.html.maps import Maps, expert_rows, maps, step_rows
from specmd.report.html.points import BOUNDS, CURVES, Columns, points, quality_metrics, rows, ticks
from specmd.report.html.scenes import MOST_LINES, Scene, scenes, shown
from specmd.report.html.theme import BOUND_DASHES, INK, Palette, dashes, policy_colours
from specmd.report.panels import percent, share
from specmd.runs.metrics import PARTS
from specmd.runs.run import Run

FORMATS = ("png", "svg", "pdf")
_WIDTH = 520
_SCALE = 2.0  # pixels of a PNG for each of the figure's


def write_figures(runs: Sequence[Run], folder: Path) -> tuple[int, list[str]]:
    """Write every figure of every scene in every format.

    Returns how many files, and which figures some scene has not, with the reason.

    Raises SpecmdError if a file cannot be written.
    """
    from vl_convert import svg_to_pdf, svg_to_png, vegalite_to_svg

    found = scenes(runs)
    columns, details = points(found), maps(found)
    colours = policy_colours(runs)
    written, left_out = 0, dict[str, None]()
    for number, scene in enumerate(found):
        for figure in figures(quality_metrics(runs)):
            every = _rows(figure, number, found, columns, details)
            drawn = [row for row in every if row.get(figure.needs) is not None]
            if not drawn:
                left_out.setdefault(f"{figure.title}: {figure.absent}")
                continue
            definition = _definition(figure, scene, drawn, colours)
            svg = vegalite_to_svg(definition)
            made = {"svg": svg.encode(), "png": svg_to_png(svg, scale=_SCALE)}
            made["pdf"] = svg_to_pdf(svg)
            for form in FORMATS:
                path = folder / f"{_slug(_where(figure, scene))}-{figure.name}.{form}"
                with replacing(path) as file:
                    file.write(made[form])
                written += 1
    return written, list(left_out)


def _middle(scene: Scene) -> int:
    return scene.slots[len(scene.slots) // 2]


def _rows(
    figure: Figure, number: int, found: Sequence[Scene], columns: Columns, details: Maps
) -> list[dict[str, Any]]:
    """Return the rows of a figure as the page has them at first."""
    scene = found[number]
    slots = _middle(scene)
    names = {*shown(scene)[:MOST_LINES], *BOUNDS.values()}
    if figure.shape == "map":
        first = next((of for of in details.of if of["scene"] == number), None)
        return expert_rows(details, first) if first is not None else []
    if figure.shape == "steps":
        here = [of for of in details.of if of["scene"] == number and of["slots"] == slots]
        return step_rows(details, [of for of in here if of["policy"] in names])
    if figure.shape == "points":
        most = 2 if figure.needs in CURVES else 1  # bounds of any capacity are no points
        at = [row for row in rows(columns, scene=number) if row["policy"] in names]
        return [row for row in at if row["bound"] <= most]
    if figure.shape == "capacity":
        at = rows(columns, scene=number, slots=slots)
        return [row for row in at if row["policy"] in names and not row["bound"]]
    beside = [
        place
        for place, each in enumerate(found)
        if (each.trace, each.setting) == (scene.trace, scene.setting)
    ]
    if len(beside) < 2 or beside[0] != number:  # one figure for all of them
        return []
    return [
        row | {"device": found[place].device, "place": place}
        for place in beside
        for row in rows(columns, scene=place, slots=slots)
        if row["policy"] in names
    ]


def _definition(
    figure: Figure, scene: Scene, drawn: Sequence[dict[str, Any]], colours: dict[str, str]
) -> dict[str, Any]:
    """Return the definition with its rows, a title and where the numbers come from."""
    there = dict.fromkeys(row["policy"] for row in drawn if "policy" in row)
    evicts = [each.evict for each in scene.compositions.values()]
    every = dict(zip(scene.compositions, dashes(evicts), strict=True))
    every |= dict(zip(BOUNDS.values(), BOUND_DASHES, strict=True))
    shades = {name: colours[each.evict] for name, each in scene.compositions.items()}
    palette = Palette(
        lines={name: shades.get(name, INK) for name in there},
        dashes={name: every.get(name) or (1, 0) for name in there},
        parts={name: part.colour for name, part in PARTS.items()},
        ink=INK,
        legend=True,
        width=_WIDTH,
    )
    made = spec(figure, palette)
    where = [_where(figure, scene)]
    if figure.shape not in ("points", "map"):
        run = next(runs[0] for (_, slots), runs in scene.runs.items() if slots == _middle(scene))
        where.append(f"{percent(share(run))} % of all experts")
    made["title"] = {
        "text": figure.title,
        "subtitle": ", ".join(where),
        "anchor": "start",
        "fontSize": 14,
        "subtitleColor": INK,
    }
    for parameter in made.get("params", ()):
        parameter["value"] = ticks(row["share"] for row in drawn)
    made["data"] = {"name": ROWS, "values": list(drawn)}
    made["$schema"] = "https://vega.github.io/schema/vega-lite/v6.json"
    return made


def _where(figure: Figure, scene: Scene) -> str:
    """Say whose numbers a figure has."""
    device = "" if figure.shape == "devices" else scene.device
    return ", ".join(filter(None, (scene.trace, device, scene.setting)))


def _slug(title: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.=]+", "-", title).strip("-")
