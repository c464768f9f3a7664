"""Runs as a picture: hit rate against capacity, and where the time of a step goes.

The left panel answers which policy at which size, and how far below Belady it stays. Beside it
stands one panel a hardware profile: the time per output token (TPOT), stacked into computing and
waiting, because a policy that halves the misses of a compute-bound step has gained nothing. The
colours are Okabe and Ito's, which stay apart for colour-blind readers; markers and line styles say
the same again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specmd.errors import SpecmdError
from specmd.report.names import caption, policy_name, varied_axes
from specmd.runs.metrics import METRICS, PARTS
from specmd.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg", ".pdf")
_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#666666")
_MARKERS = "osD^vPX*"
_STYLES = ("-", "--", "-.")
_PART_COLOURS = {
    "compute": "#56B4E9",
    "demand_stall": "#D55E00",
    "late_prefetch_stall": "#F0C000",
    "cpu_expert": "#CC79A7",
    "overhead": "#999999",
}
_MOST_CAPACITIES = 4
_BAR_INCHES = 0.2


def figure_format(path: Path) -> str:
    """Return the format of a file's suffix; raises SpecmdError for one that is not known."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SpecmdError(f"{path}: cannot draw by its suffix; use one of {', '.join(SUFFIXES)}")
    return suffix[1:]


def draw(runs: Sequence[Run], path: Path) -> None:
    """Draw the runs of one trace into a file; the first trace's, if there are several.

    Raises SpecmdError if nothing can be drawn or the file cannot be written.
    """
    form = figure_format(path)
    ok = [run for run in runs if run.status == "ok" and run.metrics.get("hit_rate") is not None]
    if not ok:
        raise SpecmdError(f"{path}: not drawn: no run has a result")
    ok = [run for run in ok if run.trace.digest == ok[0].trace.digest]

    from matplotlib import rc_context
    from matplotlib.figure import Figure

    profiles = list(dict.fromkeys(run.config.profile for run in ok if _is_timed(run)))
    bars = max((len(_bars(ok, name)) for name in profiles), default=0)
    height = max(4.2, 1.6 + bars * _BAR_INCHES)
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(5.4 + 4.4 * len(profiles), height), layout="constrained", dpi=150)
        ratios = [1.1] + [1.0] * len(profiles)
        panels = figure.subplots(1, 1 + len(profiles), width_ratios=ratios, squeeze=False)[0]
        _draw_hits(panels[0], ok)
        for number, (axes, name) in enumerate(zip(panels[1:], profiles, strict=True)):
            _draw_times(axes, _bars(ok, name), first=number == 0)
        _add_legends(figure, panels)
        figure.suptitle(_title(ok[0]), x=0.01, ha="left", fontsize=10, fontweight="bold")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, format=form, metadata=_metadata(form))
        except OSError as error:
            raise SpecmdError(f"{path}: cannot be written: {error.strerror or error}") from None


def _is_timed(run: Run) -> bool:
    return run.metrics.get("tpot_s") is not None


def _metadata(form: str) -> dict[str, Any] | None:
    """Leave the date out, so that the same runs give the same file."""
    return {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form)


def _title(run: Run) -> str:
    made = "SYNTHETIC trace " if run.trace.kind == "synthetic" else ""
    model = "" if run.trace.model == run.trace.kind else f" of {run.trace.model}"
    keys = run.trace.num_layers * run.trace.num_experts
    return f"{made}{run.trace.name}{model}: {keys:,} experts, {run.trace.counted_tokens:,} tokens"


def _share(run: Run) -> float:
    """Capacity in percent of all experts."""
    return 100 * run.config.capacity_slots / (run.trace.num_layers * run.trace.num_experts)


def _percent(share: float) -> str:
    return f"{share:.1f}".removesuffix(".0")


def _labels(runs: Sequence[Run]) -> list[str]:
    """Name the series: the policy, and what else differs but capacity and profile."""
    varied = varied_axes(runs)
    others = [
        name
        for name in ("scope", "admission", "reset", "warmup", "tokens", "shape")
        if len({getattr(run.config, name) for run in runs}) > 1
    ]
    return [
        " ".join(
            [policy_name(run, varied), *(f"{name}={getattr(run.config, name)}" for name in others)]
        )
        for run in runs
    ]


def _draw_hits(axes: Axes, runs: Sequence[Run]) -> None:
    """Hit rate against capacity; hits do not depend on the profile but through late prefetches."""
    profile = runs[0].config.profile
    chosen = [run for run in runs if run.config.profile == profile]
    lines: dict[str, list[tuple[float, float]]] = {}
    bound: dict[float, float] = {}
    for run, label in zip(chosen, _labels(chosen), strict=True):
        if run.bounds is not None and run.bounds.belady.hit_rate is not None:
            bound[_share(run)] = 100 * run.bounds.belady.hit_rate
        rate = run.metrics["hit_rate"]
        if label != "belady" and rate is not None:
            lines.setdefault(label, []).append((_share(run), 100 * rate))
        elif rate is not None:
            bound[_share(run)] = 100 * rate
    if bound:
        points = sorted(bound.items())
        axes.plot(
            *zip(*points, strict=True), color="black", ls=":", marker=".", label="belady (bound)"
        )
    for number, (label, found) in enumerate(lines.items()):
        axes.plot(
            *zip(*sorted(found), strict=True),
            color=_LINES[number % len(_LINES)],
            marker=_MARKERS[number % len(_MARKERS)],
            ls=_STYLES[number // len(_LINES) % len(_STYLES)],
            markersize=5,
            label=label,
        )
    shares = sorted({_share(run) for run in chosen})
    if len(shares) > 1 and shares[-1] / shares[0] > 4:
        axes.set_xscale("log")
    axes.set_xticks(shares, [_percent(share) for share in shares])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("capacity (% of all experts)")
    axes.set_ylabel(METRICS["hit_rate"].label)
    late = any(run.metrics.get("late_hits") for run in chosen)
    axes.set_title(f"Hit rate, {caption(chosen[0]) if late else 'simulated'}", fontsize=9)
    axes.grid(axis="y", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)


def _bars(runs: Sequence[Run], profile: str | None) -> list[tuple[str, Run] | str]:
    """Bars of a panel from the top: a heading for each capacity, then its runs."""
    timed = [run for run in runs if run.config.profile == profile and _is_timed(run)]
    sizes = sorted({run.config.capacity_slots for run in timed})
    if len(sizes) > _MOST_CAPACITIES:
        last = len(sizes) - 1
        picked = {round(i * last / (_MOST_CAPACITIES - 1)) for i in range(_MOST_CAPACITIES)}
        sizes = [sizes[i] for i in sorted(picked)]
    labels = dict(zip((run.id for run in timed), _labels(timed), strict=True))
    found: list[tuple[str, Run] | str] = []
    for size in sizes:
        here = [run for run in timed if run.config.capacity_slots == size]
        found.append(f"{size:,} slots ({_percent(_share(here[0]))} %)")
        found += [(labels[run.id], run) for run in here]
    return found


def _draw_times(axes: Axes, bars: Sequence[tuple[str, Run] | str], *, first: bool) -> None:
    """Stacked horizontal bars: the parts of TPOT, in ms; a line where all experts are resident."""
    ticks: list[tuple[float, str]] = []
    resident: float | None = None
    longest = max(_total(bar[1]) for bar in bars if not isinstance(bar, str))
    for number, bar in enumerate(bars):
        place = -float(number)
        if isinstance(bar, str):
            paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            axes.text(0, place - 0.1, bar, fontsize=8, style="italic", va="center", bbox=paper)
            continue
        label, run = bar
        left = 0.0
        for part, value in _parts(run.metrics).items():
            colour = _PART_COLOURS[part]
            axes.barh(place, value, left=left, height=0.72, color=colour, label=PARTS[part][0])
            left += value
        axes.text(left + longest * 0.01, place, f"{left:#.3g}", fontsize=7, va="center")
        ticks.append((place, label))
        if run.bounds is not None and run.bounds.all_resident.tpot_s is not None:
            resident = 1e3 * run.bounds.all_resident.tpot_s
    if resident is not None:
        axes.axvline(resident, color="black", ls=":", lw=1.2, label="all experts resident (bound)")
    axes.set_yticks([place for place, _ in ticks], [label for _, label in ticks], fontsize=8)
    axes.tick_params(axis="y", length=0, labelleft=first)
    axes.set_ylim(-len(bars) + 0.3, 0.7)
    axes.set_xlim(0, longest * 1.12)
    axes.set_xlabel(METRICS["tpot_s"].label)
    run = next(bar[1] for bar in bars if not isinstance(bar, str))
    axes.set_title(f"Time per output token, {caption(run)}", fontsize=9)


def _total(run: Run) -> float:
    return 1e3 * float(run.metrics["tpot_s"] or 0)


def _parts(metrics: Mapping[str, int | float | None]) -> dict[str, float]:
    """Parts of TPOT in ms, without those that are nought."""
    found = {part: 1e3 * float(metrics.get(f"tpot_{part}_s") or 0) for part in PARTS}
    return {part: value for part, value in found.items() if value > 0}


def _add_legends(figure: Any, panels: Sequence[Axes]) -> None:
    """Below the panels: policies on the left, the parts of the time on the right."""
    handles, labels = panels[0].get_legend_handles_labels()
    widest = max(map(len, labels))
    columns = 3 if widest < 18 else 2 if widest < 32 else 1
    style: dict[str, Any] = {"frameon": False, "fontsize": 8}
    figure.legend(handles, labels, loc="outside lower left", ncols=columns, **style)
    found: dict[str, Any] = {}
    for axes in panels[1:]:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if not found:
        return
    names = [title for title, _ in PARTS.values() if title in found]
    names += [name for name in found if name not in names]
    handles = [found[name] for name in names]
    columns = 2 if len(panels) == 2 else len(names)
    figure.legend(handles, names, loc="outside lower right", ncols=columns, **style)
