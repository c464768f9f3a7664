"""The page: one file with its style, its script, the plotting library and all its data.

What is said in words is written here, so that it is read before any script runs; the figures and
the table of runs are made by the script when they come into view.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from specmd import __version__
from specmd.errors import SpecmdError
from specmd.files import write_text
from specmd.report.html.answers import answer, without_result
from specmd.report.html.charts import figures, spec
from specmd.report.html.devices import across_devices
from specmd.report.html.maps import maps
from specmd.report.html.points import BOUNDS, packed, points, quality_metrics
from specmd.report.html.record import contract_rows, table
from specmd.report.html.scenes import MOST_LINES, Scene, order, scenes, shown
from specmd.report.html.theme import (
    BOUND_DASHES,
    INK,
    INK_DARK,
    Palette,
    dashes,
    lifted,
    policy_colours,
    turned,
)
from specmd.report.notes import notes
from specmd.runs.metrics import PARTS
from specmd.runs.run import Run

_SCRIPTS = ("data.js", "figures.js", "table.js", "page.js")
_EXTRA = "needs the extra 'report': pip install 'specmd-bench[report]'"


def require_library() -> None:
    """Raise SpecmdError naming the extra if the plotting library is not installed."""
    try:
        import altair  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise SpecmdError(f"a report {_EXTRA} ({error.name} is missing)") from None


def write_page(runs: Sequence[Run], path: Path, title: str = "") -> None:
    """Write runs as a page.

    Args:
        runs: with and without a result.
        path: the file, replaced whole.
        title: in place of a plain one.

    Raises:
        SpecmdError: no run has a result, the extra is missing, or the file cannot be written.

    """
    require_library()
    write_text(path, render_page(runs, title))


def render_page(runs: Sequence[Run], title: str = "") -> str:
    """Return the text of the page."""
    from jinja2 import Environment
    from vl_convert import javascript_bundle

    found = scenes(runs)
    if not found:
        raise SpecmdError("no run has a result: there is nothing to report")
    source = files("specmd.report.html")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(source.joinpath("page.html").read_text("utf-8"))
    styles, swatches = _lines(found, runs)
    library = javascript_bundle()  # type: ignore[call-arg]  # its stub wants what it does not need
    figure_list = figures(quality_metrics(runs))
    everything = {
        "scenes": [_scene(scene) for scene in found],
        "lines": swatches,
        "points": packed(points(found)),
        "maps": _maps(found),
        "parts": {name: part.title for name, part in PARTS.items()},
        "figures": [
            {name: getattr(each, name) for name in ("name", "title", "shape", "needs", "absent")}
            | {"spec": spec(each, _BLANK)}
            for each in figure_list
        ],
        "table": table(runs),
    }
    said = notes(runs)
    return template.render(
        title=title or _title(runs),
        count=len(runs),
        scenes=found,
        sources=sorted({run.source for run in runs}),
        answers=[answer(scene) for scene in found],
        across=across_devices(found),
        without=without_result(runs),
        contract=contract_rows(runs),
        notes=[t for t in said if t[:1].isalnum() and not t.startswith("warning: ")],
        warnings=[text.removeprefix("warning: ") for text in said if text.startswith("warning: ")],
        figures=figure_list,
        parts=PARTS,
        styles=styles,
        version=__version__,
        css=source.joinpath("page.css").read_text("utf-8"),
        library=library.replace("</script", "<\\/script"),
        scripts=[source.joinpath(name).read_text("utf-8") for name in _SCRIPTS],
        data=_inline(everything),
    )


_BLANK = Palette(
    lines={"@lines": "@"},
    dashes={"@lines": (1, 0)},
    parts={name: f"var(--{name.replace('_', '-')})" for name in PARTS},
    ink="currentColor",
    legend=False,
    width="container",
)
"""The page's: the script puts the lines of a scene in, the style sheet has the colours."""


def _title(runs: Sequence[Run]) -> str:
    traces = list(dict.fromkeys(run.trace.name for run in runs))
    return f"Expert caches on {', '.join(traces[:3])}{' and others' * (len(traces) > 3)}"


def _scene(scene: Scene) -> dict[str, Any]:
    names = order(scene)
    return {
        "trace": scene.trace,
        "device": scene.device,
        "place": scene.place,
        "setting": scene.setting,
        "measured": scene.measured,
        "slots": scene.slots,
        "lines": names,
        "shown": shown(scene)[:MOST_LINES],
    }


def _lines(found: Sequence[Scene], runs: Sequence[Run]) -> tuple[list[str], dict[str, Any]]:
    """Return the style sheet's colours, and of each line its variable and dash."""
    colours = policy_colours(runs)
    styles = [f"--ink: light-dark({INK}, {INK_DARK})", "--bound: var(--ink)"]
    variables = {}
    for number, (evict, shade) in enumerate(colours.items()):
        variables[evict] = f"var(--policy-{number})"
        styles.append(f"--policy-{number}: light-dark({shade}, {lifted(shade)})")
    for name, part in PARTS.items():
        shade = part.colour
        styles.append(f"--{name.replace('_', '-')}: light-dark({shade}, {turned(shade)})")
    compositions = {name: each for scene in found for name, each in scene.compositions.items()}
    evicts = [each.evict for each in compositions.values()]
    lines: dict[str, Any] = {}
    for (name, each), dash in zip(compositions.items(), dashes(evicts), strict=True):
        lines[name] = {"colour": variables[each.evict], "dash": dash or (1, 0), "bound": 0}
        lines[name]["future"] = int(each.clairvoyant)
    for title, dash in zip(BOUNDS.values(), BOUND_DASHES, strict=True):
        lines[title] = {"colour": "var(--bound)", "dash": dash, "bound": 1, "future": 0}
    return styles, lines


def _maps(found: Sequence[Scene]) -> dict[str, Any]:
    made = maps(found)
    return {"arrays": made.arrays, "of": made.of, "leftOut": made.left_out, "absent": made.absent}


def _inline(everything: dict[str, Any]) -> str:
    """Write data as JSON that may stand inside a script element."""
    text = json.dumps(everything, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
