"""Time against memory: the winner, LRU, what perfect deciding would give, and the bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from specmd.advice.more import perfect_of
from specmd.advice.question import METRIC, Question, by_name
from specmd.advice.search import DEFAULT, Found, batches
from specmd.advice.space import Composition, composition
from specmd.advice.trials import Report, Trials
from specmd.report.figures import figure_format, save
from specmd.report.panels import BOUND, COLOURS
from specmd.runs.options import parse_bytes
from specmd.trace import Trace

_SHARES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0)  # of all experts, in slots
LINES = ("best", "LRU", "perfect policy", "perfect prefetcher", "all experts resident", "roofline")

Curves = Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]
"""By profile and line: (bytes of memory, seconds)."""


@dataclass(frozen=True)
class _Tried:
    line: str
    memory_bytes: int
    parts: Composition


def trace_curves(
    question: Question,
    whole: Trace,
    found: Found,
    perfect: Sequence[str],
    slots: int,
    expert_bytes: int,
    trials: Trials,
    report: Report,
) -> Curves:
    """Run winner, LRU, and the perfect ones at some memories, on the second rung's prefix."""
    header = whole.header
    beside = parse_bytes(question.memory) - slots * expert_bytes
    keys = header.num_layers * header.num_experts
    sizes = [beside + int(share * keys + 1) * expert_bytes for share in _SHARES]
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for name, path in by_name(question).items():
        mine = replace(question, profiles=(path,))
        winner = composition(found.finalists[name][0].run.config)
        lines: dict[str, list[tuple[int, float]]] = {line: [] for line in LINES}
        for line, compositions, bounds in (
            ("best", [winner], False),
            ("LRU", [DEFAULT], True),
            ("perfect prefetcher", perfect_of(winner, perfect), False),
        ):
            configs = [
                config
                for size in sizes
                for config in mine.configs(whole, compositions, memory=f"{size}B")
            ]
            made = trials.run(
                batches(configs, found.steps[1], bounds=bounds), f"curve on {name}: {line}", report
            )
            best: dict[int, float] = {}
            for trial in made:
                size, value = _bytes(trial.run.config.capacity), question.value(trial.run)
                best[size] = min(value, best.get(size, value))
                if trial.run.bounds is not None:
                    ends, metric = trial.run.bounds, METRIC[question.objective]
                    over = trial.run.metrics.get("over_roofline")
                    for other, seconds in (
                        ("perfect policy", getattr(ends.belady_bypass, metric)),
                        ("all experts resident", getattr(ends.all_resident, metric)),
                        ("roofline", value / over if over else None),
                    ):
                        if seconds is not None:
                            lines[other].append((size, seconds))
            lines[line] = sorted(best.items())
        curves[name] = {line: sorted(points) for line, points in lines.items()}
    return curves


def draw(curves: Curves, title: str, label: str, path: Path) -> None:
    """Draw a panel a profile; raises SpecmdError if the file cannot be written."""
    figure_format(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 3.6 * len(curves), 3.9), layout="constrained", dpi=150)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    styles = {
        "best": {"color": COLOURS["least_stale"], "marker": "o"},
        "LRU": {"color": COLOURS["lru"], "marker": "s"},
        "perfect policy": {"color": BOUND, "ls": ":"},
        "perfect prefetcher": {"color": BOUND, "ls": "--"},
        "all experts resident": {"color": "#8a8a8a", "ls": "-"},
        "roofline": {"color": "#8a8a8a", "ls": "-."},
    }
    for axes, (profile, lines) in zip(panels, curves.items(), strict=True):
        for line, points in lines.items():
            if points:
                memory, seconds = zip(*points, strict=True)
                axes.plot(
                    [each / 1e9 for each in memory],
                    [1e3 * each for each in seconds],
                    label=line,
                    ms=4,
                    lw=1.4,
                    **styles[line],
                )
        axes.set_yscale("log")
        for each in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            each(lambda value, _: f"{value:.3g}")
        axes.set_xlabel("memory of the device (GB)")
        axes.set_title(f"{profile} (simulated)", fontsize=9)
        axes.grid(axis="y", which="both", color="#eeeeee", lw=0.6)
    panels[0].set_ylabel(f"{label} (ms)")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=9)
    save(figure, path)


def _bytes(capacity: str) -> int:
    return parse_bytes(capacity.removesuffix(" total"))
