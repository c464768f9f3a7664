"""The numbers behind the figures: a point a composition, capacity and scene; beside them bounds.

Columns, not rows: a column is written once with its name, and what it says of many points in few
words is a list of words and their places. Values are in the unit of their metric's label, with four
digits, which is more than a figure shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import log
from typing import Any

from specmd.report.html.scenes import Scene, slots_bytes
from specmd.report.panels import share
from specmd.runs.metrics import METRICS, PARTS, Metric
from specmd.runs.run import Bounds, Run

CURVES = ("hit_rate", "bytes_per_token", "tpot_s", "regret", "over_roofline", "stall_share")
"""What is drawn against capacity."""

REGRET = Metric(
    "regret", "misses above Belady", "share", "lower", "rate", "(misses - Belady's) / Belady's"
)
"""Of runs without prefetch; runs say it in their bounds."""

BOUNDS = {
    "belady": "Belady (bound)",
    "belady_bypass": "Belady with bypass (bound)",
    "compulsory": "first uses only (bound)",
    "all_resident": "all resident (bound)",
    "no_cache": "no cache (bound)",
}
FLAT = ("compulsory", "all_resident", "no_cache")
"""Bounds that hold at any capacity."""
SPLIT = ("tpot", "ttft")
"""Times that are split into parts."""

Column = list[float | int | str | None]
Columns = dict[str, Column]


def declared(name: str) -> Metric:
    """Look a metric of the figures up."""
    return REGRET if name == REGRET.name else METRICS[name]


def quality_metrics(runs: Iterable[Run]) -> list[str]:
    """Name the metrics of quality that some run has: lossy runs have, once they are measured."""
    known = [name for name, each in METRICS.items() if str(each.group) == "quality"]
    return [name for name in known if any(run.metrics.get(name) is not None for run in runs)]


def shown_metrics(scenes: Sequence[Scene]) -> list[str]:
    """Name the columns of numbers that points have."""
    runs = [run for scene in scenes for each in scene.runs.values() for run in each]
    parts = [f"{short}_{part}_s" for short in SPLIT for part in PARTS]
    named = [name for name in CURVES if name != REGRET.name]
    return [*named, "tokens_per_s", "ttft_s", *parts, *quality_metrics(runs)]


def digits(number: float | None, count: int = 4) -> float | int | None:
    """Round to some significant digits, without a trailing fraction of nought."""
    if number is None:
        return None
    rounded = float(f"{number:.{count}g}")
    return int(rounded) if rounded == int(rounded) else rounded


def points(scenes: Sequence[Scene]) -> Columns:
    """Return the points of all scenes, scene after scene, capacities rising."""
    metrics = shown_metrics(scenes)
    head = ("scene", "policy", "bound", "slots", "share", "gb", "front", "low", "high", REGRET.name)
    columns: Columns = {name: [] for name in (*head, *metrics)}

    def add(row: Mapping[str, Any]) -> None:
        for name, column in columns.items():
            column.append(row.get(name))

    for number, scene in enumerate(scenes):
        front = _front(scene)
        for slots in scene.slots:
            here = [name for name in scene.compositions if (name, slots) in scene.runs]
            place = _place(scene.runs[here[0], slots][0])
            for name in here:
                runs = scene.runs[name, slots]
                row = {"scene": number, "policy": name, "bound": 0, "slots": slots, **place}
                row |= {each: _scaled(each, scene.mean(each, name, slots)) for each in metrics}
                between = spread(runs)
                if between is not None:
                    row["low"], row["high"] = (_scaled("tpot_s", end) for end in between)
                row["front"] = 1 if (name, slots) in front else 0
                row[REGRET.name] = _scaled(REGRET.name, _regret(runs[0]))
                add(row)
            bounded = next((run for n in here for run in scene.runs[n, slots] if run.bounds), None)
            if bounded is not None and bounded.bounds is not None:
                for field, title in BOUNDS.items():
                    found = _bound(bounded, bounded.bounds, field)
                    row = {each: _scaled(each, number) for each, number in found.items()}
                    row |= {"scene": number, "policy": title, "slots": slots, **place}
                    add(row | {"bound": 2 if field in FLAT else 1})
    return {name: each for name, each in columns.items() if any(v is not None for v in each)}


def _place(run: Run) -> dict[str, Any]:
    sizes = slots_bytes(run)
    return {"share": digits(share(run)), "gb": None if sizes is None else digits(sizes / 1e9)}


def _scaled(name: str, number: float | None) -> float | int | None:
    return digits(declared(name).scaled(number))


def _regret(run: Run) -> float | None:
    return run.bounds.regret_share if run.bounds is not None else None


def spread(runs: Sequence[Run]) -> tuple[float, float] | None:
    """Return the least and the largest TPOT in s, of repetitions or of several runs, if there are.

    None where all are alike.
    """
    lows, highs = [], []
    for run in runs:
        repeated = run.measurement.spread.get("tpot_s") if run.measurement is not None else None
        tpot = run.metrics.get("tpot_s")
        if repeated is not None:
            lows.append(repeated.low)
            highs.append(repeated.high)
        elif tpot is not None and len(runs) > 1:
            lows.append(float(tpot))
            highs.append(float(tpot))
    return (min(lows), max(highs)) if lows and min(lows) < max(highs) else None


def _bound(run: Run, bounds: Bounds, field: str) -> dict[str, float | None]:
    """Return what a bound says in the words of metrics."""
    bound = getattr(bounds, field)
    found: dict[str, float | None] = {
        "hit_rate": bound.hit_rate if 0 < (bound.hit_rate or 0) < 1 else None,
        "tpot_s": bound.tpot_s,
        "ttft_s": bound.ttft_s,
        "tokens_per_s": 1 / bound.tpot_s if bound.tpot_s else None,
    }
    if field.startswith("belady") and bound.total_s is not None and bounds.roofline_s:
        found["over_roofline"] = bound.total_s / bounds.roofline_s
    if field == "belady_bypass" and bounds.belady.misses:
        found[REGRET.name] = bound.misses / bounds.belady.misses - 1
    whole, asked = run.metrics.get("no_cache_bytes_per_token"), run.metrics.get("accesses")
    sizes = run.regime.size_classes if run.regime is not None else ()
    if (
        whole is not None and asked and bound.misses and len(sizes) == 1
    ):  # else bytes depend on which are missed
        found["bytes_per_token"] = bound.misses * whole / asked
    return found


def _front(scene: Scene) -> set[tuple[str, int]]:
    """Return the points that nothing beats in both memory and speed, bounds aside."""
    if not scene.timed:
        return set()
    found: set[tuple[str, int]] = set()
    best = float("inf")
    for slots, ranked in scene.leaders.items():
        tpot_s, name = ranked[0]
        if tpot_s < best:
            best = tpot_s
            found.add((name, slots))
    return found


def ticks(shares: Iterable[float], room: float = 1 / 12) -> list[float]:
    """Choose of the capacities those that leave room for a word each on a logarithmic axis."""
    each = sorted({each for each in shares if each > 0})
    if not each:
        return []
    least = room * log(each[-1] / each[0])
    kept = [each[-1]]
    for lower in reversed(each[:-1]):
        if log(kept[-1] / lower) >= least:
            kept.append(lower)
    return kept[::-1]


def packed(columns: Columns) -> dict[str, Any]:
    """Write columns of words, and those with few values, as words and places."""
    found: dict[str, Any] = {}
    for name, column in columns.items():
        words = list(dict.fromkeys(column))
        few = len(words) <= max(2, len(column) // 3) and any(isinstance(w, str) for w in words)
        places = {word: place for place, word in enumerate(words)}
        found[name] = {"words": words, "at": [places[v] for v in column]} if few else column
    return found


def rows(columns: Columns, **wanted: object) -> list[dict[str, Any]]:
    """Return rows of columns where all named columns have the wanted values."""
    names = list(columns)
    chosen = [
        i
        for i in range(len(columns["scene"]))
        if all(columns[name][i] == asked for name, asked in wanted.items())
    ]
    return [{name: columns[name][i] for name in names} for i in chosen]
