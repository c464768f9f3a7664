"""The panels of a figure: hit rates as lines, times as bars.

A policy has its colour in every figure, which is nobody else's; what differs beside the policy's
name has another marker and line. Causes of waiting are greys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from colorsys import hls_to_rgb
from math import log
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from specmd.report.names import CIRCUMSTANCES, policy_name, varied_axes
from specmd.runs.metrics import METRICS, PARTS
from specmd.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours first, for what is compared most; further ones keep their distance.
COLOURS = {
    "lru": "#0072b2",
    "least_stale": "#009e73",
    "lfu": "#d55e00",
    "lfru": "#cc79a7",
    "arc": "#e69f00",
    "layer_distance": "#56b4e9",
    "lrfu": "#8c2d04",
    "slru": "#7b4fb5",
    "s3fifo": "#a6761d",
    "sieve": "#b2a800",
    "fifo": "#6b8e23",
    "static": "#e7298a",
    "mru": "#1b4f72",
    "random": "#7fc41c",
}
BOUND = "black"
_MARKERS = "osD^vPX*"
_STYLES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))

Bar = tuple[str, Run] | str


class Panel(NamedTuple):
    """One pair of axes: bars of times, or hit rates where there are no bars."""

    title: str
    runs: Sequence[Run]
    bars: Sequence[Bar] = ()


def share(run: Run) -> float:
    """Capacity in percent of all experts."""
    return 100 * run.config.capacity_slots / (run.trace.num_layers * run.trace.num_experts)


def percent(value: float) -> str:
    """Write a share with one decimal, which a whole number does without."""
    return f"{value:.1f}".removesuffix(".0")


def three_digits(value: float) -> str:
    """Write a number with three digits, or all those before the point: 0.0123, 1.23, 138, 1,380."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def named(runs: Sequence[Run]) -> list[tuple[str, Run]]:
    """Name each run: the policy, and what else differs but capacity and profile."""
    varied = varied_axes(runs)
    more = [name for name in CIRCUMSTANCES if len({getattr(run.config, name) for run in runs}) > 1]
    return [
        (
            " ".join([policy_name(run, varied), *(f"{n}={getattr(run.config, n)}" for n in more)]),
            run,
        )
        for run in runs
    ]


def colour(run: Run) -> str:
    """Return the colour of a run's policy, the same in every figure."""
    name = run.config.evict.split(":")[0]
    if name == "belady":
        return BOUND
    return COLOURS.get(name) or _made_of(name)


def _made_of(name: str) -> str:
    """Make a colour of a name: so many policies have no place in a palette."""
    code = crc32(name.encode())
    hue, light = (code & 0xFFFF) / 0x10000, 0.32 + 0.26 * (code >> 24) / 0xFF
    red, green, blue = (round(255 * part) for part in hls_to_rgb(hue, light, 0.6))
    return f"#{red:02x}{green:02x}{blue:02x}"


def draw_hits(axes: Axes, panel: Panel) -> None:
    """Hit rate against capacity; hits do not depend on the profile but through late prefetches."""
    runs = panel.runs
    lines: dict[str, list[tuple[float, float]]] = {}
    colours: dict[str, str] = {}
    bound: dict[float, float] = {}
    for label, run in named(runs):
        if run.bounds is not None and run.bounds.belady.hit_rate is not None:
            bound[share(run)] = 100 * run.bounds.belady.hit_rate
        rate = 100 * float(run.metrics["hit_rate"] or 0)
        if label == "belady":
            bound[share(run)] = rate
        else:
            lines.setdefault(label, []).append((share(run), rate))
            colours[label] = colour(run)
    if bound:
        points = sorted(bound.items())
        label = "belady (bound without prefetch)"
        axes.plot(*zip(*points, strict=True), color=BOUND, ls=":", marker=".", label=label)
    for number, (label, found) in enumerate(lines.items()):
        before = [colours[other] for other in list(lines)[:number]].count(colours[label])
        axes.plot(
            *zip(*sorted(found), strict=True),
            color=colours[label],
            marker=_MARKERS[number % len(_MARKERS)],
            ls=_STYLES[before % len(_STYLES)],
            markersize=5,
            label=label,
        )
    shares = sorted({share(run) for run in runs})
    logarithmic = len(shares) > 1 and shares[-1] / shares[0] > 4
    if logarithmic:
        axes.set_xscale("log")
    ticks = _apart([log(each) for each in shares] if logarithmic else shares)
    axes.set_xticks([shares[i] for i in ticks], [percent(shares[i]) for i in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("capacity (% of all experts)")
    axes.set_ylabel(METRICS["hit_rate"].label)
    axes.set_title(panel.title, fontsize=9)
    axes.grid(axis="y", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)


def _apart(places: Sequence[float]) -> list[int]:
    """Choose the places that leave room for a label at each; both ends are among them."""
    room = (places[-1] - places[0]) / 11
    kept = [0]
    for number in range(1, len(places) - 1):
        if min(places[number] - places[kept[-1]], places[-1] - places[number]) >= room:
            kept.append(number)
    return kept + [len(places) - 1] * (len(places) > 1)


def draw_times(axes: Axes, panel: Panel) -> None:
    """Stacked horizontal bars: what TPOT has above that with all experts resident, in ms."""
    bars = panel.bars
    runs = [bar[1] for bar in bars if not isinstance(bar, str)]
    resident = [_resident_ms(run) for run in runs]
    above = all(each is not None for each in resident)
    stacks = [
        _parts(run, each if above else None) for run, each in zip(runs, resident, strict=True)
    ]
    longest = max((sum(stack.values()) for stack in stacks), default=0.0) or 1.0
    ticks: list[tuple[float, str, str]] = []
    left = iter(stacks)
    for number, bar in enumerate(bars):
        place = -float(number)
        if isinstance(bar, str):
            axes.text(0, place - 0.1, bar, fontsize=8, style="italic", va="center")
            continue
        label, run = bar
        end = 0.0
        for part, value in next(left).items():
            known = PARTS.get(part)
            title, shade = (known.title, known.colour) if known else (part, "#cfd8dc")
            axes.barh(
                place, value, left=end, height=0.72, color=shade, label=title,
                edgecolor="#555555", linewidth=0.4,
            )  # fmt: skip
            end += value
        total = three_digits(1e3 * float(run.metrics["tpot_s"] or 0))
        axes.text(end + longest * 0.01, place, total, fontsize=7, va="center")
        ticks.append((place, label, colour(run)))
    axes.set_yticks([place for place, *_ in ticks], [f"{text} ●" for _, text, _ in ticks])
    for tick, (_, _, shade) in zip(axes.get_yticklabels(), ticks, strict=True):
        tick.set_color(shade)
        tick.set_fontsize(8)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-len(bars) + 0.3, 0.7)
    axes.set_xlim(0, longest * 1.15)
    found = sorted({three_digits(each) for each in resident if each is not None})
    label = METRICS["tpot_s"].label
    if above:
        label = (
            f"{label} above that of all experts resident ({' to '.join(found)});\n"
            "the whole stands beside each bar"
        )
    axes.set_xlabel(label, fontsize=8)
    axes.set_title(panel.title, fontsize=9)


def _resident_ms(run: Run) -> float | None:
    found = run.bounds.all_resident.tpot_s if run.bounds is not None else None
    return None if found is None else 1e3 * found


def _parts(run: Run, resident: float | None) -> dict[str, float]:
    """Parts of TPOT in ms, without those that are nought; of the rest only what is on top."""
    metrics: Mapping[str, int | float | None] = run.metrics
    found = {part: 1e3 * float(metrics.get(f"tpot_{part}_s") or 0) for part in PARTS}
    if resident is not None:
        total = 1e3 * float(metrics["tpot_s"] or 0)
        found = {part: found[part] for part in PARTS if part not in ("compute", "overhead")}
        found["computing and software"] = total - resident - sum(found.values())
    least = 1e-3 * sum(found.values())
    return {part: value for part, value in found.items() if value > least}
