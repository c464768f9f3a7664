"""Measured runs beside their simulation, as a picture: two bars each, in the parts of the time.

A panel for TTFT and one for TPOT. The upper bar of a pair is what was measured, with the range of
its repetitions; the lower, hatched one is what a simulation on the machine's profile says of the
same run, with its error. Policies have their colour, causes of waiting their grey, as in every
figure. Computing and software are one part: a live engine counts launches as computing, a profile
has them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from specmd.errors import SpecmdError
from specmd.measurement.prediction import TIMES, Prediction
from specmd.report.figures import figure_format, save
from specmd.report.names import caption, policy_name
from specmd.report.panels import colour, percent, share, three_digits
from specmd.runs.metrics import PARTS, metric
from specmd.runs.run import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

MOST = 24
_HEIGHT = 0.4


def draw_pairs(
    found: Sequence[Prediction], profile: str, path: Path, cautions: Sequence[str] = ()
) -> list[str]:
    """Draw predictions in their order into a file, with cautions below; return what was left out.

    Raises SpecmdError if there is none, or the file cannot be written.
    """
    figure_format(path)
    pairs = [each for each in found if each.error("tpot_s") is not None]
    if not pairs:
        raise SpecmdError(f"{path}: not drawn: no run has a measured and a simulated time")
    left_out = [f"{len(found) - len(pairs)} runs without both times"] * (len(pairs) < len(found))
    left_out += [f"{len(pairs) - MOST} of {len(pairs)} runs"] * (len(pairs) > MOST)
    pairs = pairs[:MOST]

    from matplotlib import rc_context
    from matplotlib.figure import Figure

    headings = len({_heading(each) for each in pairs})
    height = 1.7 + 0.42 * len(pairs) + 0.25 * headings
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9.6, height), layout="constrained", dpi=150)
        handles: dict[str, Patch] = {}
        for axes, name in zip(figure.subplots(1, len(TIMES)), TIMES, strict=True):
            handles |= _draw(axes, pairs, name)
        first = pairs[0].run
        figure.suptitle(
            f"{first.trace.name}: {caption(first)}, beside simulated ({profile})",
            fontsize=10, fontweight="bold", x=0.01, ha="left",
        )  # fmt: skip
        notes = [*cautions, *(f"left out: {each}" for each in left_out)]
        figure.legend(
            handles.values(), handles, loc="outside lower left", ncols=len(handles),
            frameon=False, fontsize=8, title="\n".join(fill(each, 130) for each in notes) or None,
            title_fontsize=8, alignment="left",
        )  # fmt: skip
        save(figure, path)
    return left_out


def _heading(each: Prediction) -> str:
    run = each.run
    return f"{run.config.capacity_slots:,} slots ({percent(share(run))} %)"


def _draw(axes: Axes, pairs: Sequence[Prediction], name: str) -> dict[str, Patch]:
    """Draw one panel; return its legend."""
    from matplotlib.patches import Patch

    used: dict[str, Patch] = {}
    place, heading = 0.0, ""
    ticks: list[tuple[float, str, str]] = []
    longest = 1e3 * max(
        float(value or 0)
        for each in pairs
        for value in (each.run.metrics[name], each.predicted[name])
    )
    for each in pairs:
        if _heading(each) != heading:
            heading = _heading(each)
            axes.text(0, place, heading, fontsize=8, style="italic", va="center")
            place -= 0.75
        spread = each.run.measurement.spread.get(name) if each.run.measurement else None
        for row, metrics in enumerate((each.run.metrics, each.predicted)):
            at, end = place - row * _HEIGHT, 0.0
            for (title, shade), value in _parts(metrics, name).items():
                axes.barh(
                    at, value, left=end, height=_HEIGHT, color=shade, linewidth=0.4,
                    edgecolor="#8c8c8c" if row else "#555555", hatch="////" if row else None,
                )  # fmt: skip
                used[title] = Patch(facecolor=shade, edgecolor="#555555")
                end += value
            text = three_digits(end)
            if row:
                error = each.error(name)
                text += "" if error is None else f" ({100 * error:+.0f} %)"
            elif spread is not None:
                low, high = 1e3 * spread.low, 1e3 * spread.high
                axes.plot([low, high], [at, at], color="black", lw=1.2, marker="|", ms=5)
                end = max(end, high)
            axes.text(end + longest * 0.015, at, text, fontsize=7, va="center")
        ticks.append((place - _HEIGHT / 2, policy_name(each.run), colour(each.run)))
        place -= 2 * _HEIGHT + 0.25
    axes.set_yticks([at for at, *_ in ticks], [f"{text} ●" for _, text, _ in ticks])
    for tick, (*_, shade) in zip(axes.get_yticklabels(), ticks, strict=True):
        tick.set_color(shade)
        tick.set_fontsize(8)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(place + 0.2, 0.4)
    axes.set_xlim(0, longest * 1.3)
    axes.set_xlabel(metric(name).label)
    for title, hatch in (("measured, range of repetitions", None), ("simulated, error", "////")):
        used[title] = Patch(facecolor="white", edgecolor="#555555", hatch=hatch)
    return used


def _parts(metrics: Metrics, name: str) -> dict[tuple[str, str], float]:
    """Causes of waiting and their colours, in ms, and before them all the rest of the time."""
    short = name.removesuffix("_s")
    total = 1e3 * float(metrics[name] or 0)
    stalls = {
        (part.title, part.colour): 1e3 * float(metrics.get(f"{short}_{key}_s") or 0)
        for key, part in PARTS.items()
        if part.is_stall
    }
    found = {("computing and software", "#cfd8dc"): total - sum(stalls.values())} | stalls
    return {part: value for part, value in found.items() if value > 1e-3 * total}
