"""Runs as a picture: hit rate against capacity, and what waiting adds to a token.

One row of panels a trace. The left panel answers which policy at which size, and how far below
Belady it stays. Beside it stands one panel a hardware profile: what the time per output token
(TPOT) has on top of that with every expert resident, split into its causes. Computing is the same
for all policies and would fill the bars; where it is not known (measured runs, or no bounds) they
show all of it. The whole TPOT stands beside each bar.
What does not fit is named, in the figure and by `draw`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specmd.errors import SpecmdError
from specmd.files import replacing
from specmd.report.names import caption
from specmd.report.panels import Bar, Panel, draw_hits, draw_times, named, percent, share
from specmd.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
_MOST_BARS = 48
_MOST_TRACES = 6
_BAR_INCHES = 0.2

_MOST_ABREAST = 3


def figure_format(path: Path) -> str:
    """Return the format of a file's suffix; raises SpecmdError for one that is not known."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SpecmdError(f"{path}: cannot draw by its suffix; use one of {', '.join(SUFFIXES)}")
    return suffix[1:]


def draw(runs: Sequence[Run], path: Path) -> list[str]:
    """Draw runs into a file, a row of panels a trace; return what was left out, which it says, too.

    Raises SpecmdError if nothing can be drawn or the file cannot be written.
    """
    figure_format(path)
    ok = [run for run in runs if run.status == "ok" and run.metrics.get("hit_rate") is not None]
    if not ok:
        raise SpecmdError(f"{path}: not drawn: no run has a result")
    left_out = [f"{len(runs) - len(ok)} of {len(runs)} runs, without a result"] * (ok != runs)
    traces: dict[str, list[Run]] = {}
    for run in ok:
        traces.setdefault(run.trace.digest + run.trace.name, []).append(run)
    rows = list(traces.values())
    left_out += [f"trace {row[0].trace.name}" for row in rows[_MOST_TRACES:]]

    from matplotlib import rc_context
    from matplotlib.figure import Figure

    lines: list[tuple[str, list[Panel]]] = []
    for row in rows[:_MOST_TRACES]:
        panels = _plan(row, left_out)
        for first in range(0, len(panels), _MOST_ABREAST):
            title = "" if first else _title(row[0])
            lines.append((title, panels[first : first + _MOST_ABREAST]))
    width = max(len(panels) for _, panels in lines)
    heights = [
        max(3.2, 0.9 + max(len(panel.bars) for panel in panels) * _BAR_INCHES)
        for _, panels in lines
    ]
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        size = (1.0 + 4.6 * width, 1.0 + sum(heights))
        figure = Figure(figsize=size, layout="constrained", dpi=150)
        grid = figure.subplots(
            len(lines), width, width_ratios=[1.0] * width, height_ratios=heights, squeeze=False
        )
        for (title, panels), places in zip(lines, grid, strict=True):
            for axes in places[len(panels) :]:
                axes.set_axis_off()
            for axes, panel in zip(places, panels, strict=False):
                draw_times(axes, panel) if panel.bars else draw_hits(axes, panel)
            about = {"xycoords": "axes fraction", "textcoords": "offset points"}
            places[0].annotate(title, (0, 1), (-30, 22), fontsize=10, fontweight="bold", **about)
        _add_legends(figure, [axes for line in grid for axes in line], left_out)
        save(figure, path)
    return left_out


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the form of its suffix, without the date: alike runs, alike files."""
    form = figure_format(path)
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with replacing(path) as file:
        figure.savefig(file, format=form, metadata=dates.get(form))


def _plan(runs: Sequence[Run], left_out: list[str]) -> list[Panel]:
    """Choose the panels of a trace: hit rates, by profile only where they differ, then times."""
    profiles = list(dict.fromkeys(run.config.profile for run in runs))
    by_profile = [[run for run in runs if run.config.profile == each] for each in profiles]
    late = any(run.metrics.get("late_hits") for run in runs)
    said = caption(runs[0]) if late or runs[0].source == "measured" else "simulated"
    hits = [Panel(f"Hit rate, {said}", by_profile[0])]
    if any(not _hit_alike(by_profile[0], each) for each in by_profile[1:]):
        hits = [Panel(f"Hit rate, {caption(each[0])}", each) for each in by_profile]
    elif late and len(profiles) > 1:
        hits = [Panel(f"{hits[0].title}, others within a point", by_profile[0])]
    times = []
    for each in by_profile:
        timed = [run for run in each if run.metrics.get("tpot_s") is not None]
        if timed:
            title = f"Time per output token, {caption(timed[0])}"
            times.append(Panel(title, timed, _bars(timed, left_out)))
    return hits + times


def _hit_alike(some: Sequence[Run], others: Sequence[Run]) -> bool:
    """Whether runs on two profiles have the same hit rates, within a point."""
    first, second = (
        {
            (label, run.config.capacity_slots): run.metrics["hit_rate"] or 0
            for label, run in named(each)
        }
        for each in (some, others)
    )
    return first.keys() == second.keys() and all(
        abs(rate - second[key]) < 0.01 for key, rate in first.items()
    )


def _title(run: Run) -> str:
    made = "SYNTHETIC trace " if run.trace.kind == "synthetic" else ""
    model = "" if run.trace.model == run.trace.kind else f" of {run.trace.model}"
    keys = run.trace.num_layers * run.trace.num_experts
    return f"{made}{run.trace.name}{model}: {keys:,} experts, {run.trace.counted_tokens:,} tokens"


def _bars(runs: Sequence[Run], left_out: list[str]) -> list[Bar]:
    """Bars of a panel from the top: a heading for each capacity, then its runs."""
    sizes = sorted({run.config.capacity_slots for run in runs})
    most = max(2, _MOST_BARS // (1 + len(runs) // len(sizes)))
    if len(sizes) > most:
        picked = {round(i * (len(sizes) - 1) / (most - 1)) for i in range(most)}
        gone = [f"{size:,}" for i, size in enumerate(sizes) if i not in picked]
        left_out.append(f"times of {runs[0].trace.name} at {', '.join(gone)} slots")
        sizes = [sizes[i] for i in sorted(picked)]
    found: list[Bar] = []
    for size in sizes:
        here = [(label, run) for label, run in named(runs) if run.config.capacity_slots == size]
        found.append(f"{size:,} slots ({percent(share(here[0][1]))} %)")
        found += here
    return found


def _add_legends(figure: Any, panels: Sequence[Axes], left_out: Sequence[str]) -> None:
    """Below the panels: policies on the left, the parts of the time on the right."""
    lines: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            (lines if hasattr(handle, "get_marker") else parts).setdefault(label, handle)
    style: dict[str, Any] = {"frameon": False, "fontsize": 8}
    widest = max(map(len, lines))
    columns = 3 if widest < 18 else 2 if widest < 36 else 1
    note = {"title": f"left out: {'; '.join(left_out)}", "title_fontsize": 8, "alignment": "left"}
    told = note if left_out else {}
    figure.legend(lines.values(), lines, loc="outside lower left", ncols=columns, **style, **told)
    if parts:
        loc = "outside lower right"
        figure.legend(parts.values(), parts, loc=loc, ncols=1 if len(parts) < 4 else 2, **style)
