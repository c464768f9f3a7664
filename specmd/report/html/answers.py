"""The first screen: which policy, how far from Belady, how much memory, whether copies bind.

Said for every scene, from its runs and their bounds: the winner is the composition least behind the
best over all capacities; those that know the future do not take part. Where a number depends on the
capacity its range is said, and a table has it at each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp

from specmd.report.html.points import spread
from specmd.report.html.scenes import Scene, slots_bytes, winner
from specmd.report.panels import percent, three_digits
from specmd.runs.metrics import METRICS
from specmd.runs.run import Bound, Bounds, Run

ORACLE_SHARE = 0.9
COPY_BOUND = 0.5
"""Share of the time spent waiting from which on a run is called copy-bound."""
BASELINE = "lru"
BYPASS_MATTERS = 0.05
"""Forced Belady so far above Belady with bypass flatters every policy: both are said."""


@dataclass(frozen=True)
class Tile:
    """A question, its answer in a few words, and what to know of it."""

    question: str
    answer: str
    detail: str


@dataclass(frozen=True)
class AtCapacity:
    """The best at a capacity, as cells of a table."""

    slots: int
    size: str
    over_working_set: str
    best: str
    value: str
    ahead: str
    over_baseline: str
    of_belady: str
    over_roofline: str
    stall: str


@dataclass(frozen=True)
class Answer:
    """What a scene answers."""

    scene: Scene
    winner: str
    tiles: Sequence[Tile]
    rows: Sequence[AtCapacity]
    short: Sequence[str]

    @property
    def beside_belady(self) -> str:
        """What the column beside Belady holds."""
        speed = any(row.of_belady.endswith("%") for row in self.rows)
        return "Belady's speed" if speed else "hit rate, Belady (points)"


def answer(scene: Scene) -> Answer:
    """Answer the questions of the first screen for a scene."""
    best = winner(scene) or next(iter(scene.compositions))
    ranked = scene.leaders
    won = sum(best in _first(scene, slots) for slots in ranked)
    counted = f"best at {won} of {len(ranked)} capacities"
    others = dict.fromkeys(ranked[slots][0][1] for slots in ranked)
    others.pop(best, None)
    detail = f"{counted}, by {scene.judge.title}"
    if others:
        detail += f"; elsewhere {', '.join(list(others)[:3])}{' and others' * (len(others) > 3)}"
    if not ranked:
        detail = "only runs that know the future have a result"
    belady, memory, stall = (each(scene, best) for each in (_belady, _memory, _stall))
    tiles = [Tile("Which policy?", best, detail), belady, memory, stall]
    rows = [_at(scene, slots) for slots in ranked]
    short = (best, f"{won} of {len(ranked)}", belady.answer, memory.answer, stall.answer)
    return Answer(scene, best, tiles, rows, short)


def size(scene: Scene, slots: int) -> str:
    """Spell a capacity: `2.04 GB (20 %)`."""
    run = next(runs[0] for (_, here), runs in scene.runs.items() if here == slots)
    keys = run.trace.num_layers * run.trace.num_experts
    part = f"{percent(100 * slots / keys)} %"
    whole = slots_bytes(run)
    if whole is None:
        return f"{slots:,} slots ({part})"
    scale, unit = (1e9, "GB") if whole >= 1e8 else (1e6, "MB") if whole >= 1e5 else (1e3, "kB")
    return f"{three_digits(whole / scale)} {unit} ({part})"


def _first(scene: Scene, slots: int) -> list[str]:
    """Name the best at a capacity, several if they tie."""
    ranked = scene.leaders[slots]
    return [name for each, name in ranked if each == ranked[0][0]]


def _bounds(scene: Scene, slots: int) -> Bounds | None:
    at = (run for (_, here), runs in scene.runs.items() if here == slots for run in runs)
    return next((run.bounds for run in at if run.bounds is not None), None)


def _speed(scene: Scene, name: str, slots: int, of: str) -> float | None:
    """Return the speed of a composition as a share of a bound's, or None."""
    bounds = _bounds(scene, slots)
    bound: Bound | None = getattr(bounds, of) if bounds is not None else None
    own = scene.mean("tpot_s", name, slots)
    return bound.tpot_s / own if bound is not None and bound.tpot_s and own else None


def _belady(scene: Scene, name: str) -> Tile:
    question = "How far from Belady?"
    speeds, gaps, extra = {}, {}, {}
    for slots in scene.slots:
        bounds = _bounds(scene, slots)
        speed = _speed(scene, name, slots, "belady")
        if speed is not None:
            speeds[slots] = speed
        rate = scene.mean("hit_rate", name, slots)
        if bounds is not None and bounds.belady.hit_rate is not None and rate is not None:
            gaps[slots] = 100 * (bounds.belady.hit_rate - rate)
        run = next(iter(scene.runs.get((name, slots), ())), None)
        if run is not None and run.bounds is not None and run.bounds.regret_share is not None:
            extra[slots] = run.bounds.regret_share
    if not gaps:
        return Tile(question, "not known", "the runs were made without bounds")
    worst = max(extra, key=lambda slots: extra[slots], default=None)
    most = f"at worst {extra[worst]:+.0%} misses, at {size(scene, worst)}" if worst else ""
    most = most.replace("%", " %", 1)
    if worst is not None and (by := _above_bypass(scene, name, worst)) is not None:
        most += f"; {100 * by:+.0f} % above Belady with bypass"
    points = f"hit rate {_span(gaps.values(), '{:.1f}')} points below"
    if speeds and scene.timed:
        shares = _span((100 * each for each in speeds.values()), "{:.0f}")
        return Tile(question, f"{shares} % of its speed", "; ".join(filter(None, (points, most))))
    return Tile(question, f"{_span(gaps.values(), '{:.1f}')} points", most or "of hit rate")


def _above_bypass(scene: Scene, name: str, slots: int) -> float | None:
    """Return misses above Belady with bypass, where forced Belady is far from it."""
    bounds = scene.runs[name, slots][0].bounds
    if bounds is None or bounds.bypass_gap <= BYPASS_MATTERS * bounds.belady_bypass.misses:
        return None
    return bounds.bypass_regret_share


def _memory(scene: Scene, name: str) -> Tile:
    question = f"Memory for {ORACLE_SHARE:.0%} of the oracle's speed?".replace("%", " %")
    if not scene.timed:
        return Tile(question, "no clock", "run with --profile to know")
    found = [_from_on(scene, name, of) for of in ("belady", "all_resident")]
    if found[0] is None:
        return Tile(question, "not known", "the bounds of these runs have no times")
    resident = "" if found[1] is None else f"; of all experts resident: {found[1]}"
    return Tile(question, found[0], f"the oracle is Belady with as much memory{resident}")


def _from_on(scene: Scene, name: str, of: str) -> str | None:
    """Say the least capacity from which on a share of a bound's speed is reached."""
    known = {s: speed for s in scene.slots if (speed := _speed(scene, name, s, of)) is not None}
    if not known:
        return None
    enough: int | None = None
    for slots, speed in reversed(known.items()):
        if speed < ORACLE_SHARE:
            break
        enough = slots
    if enough is None:
        return f"not by {size(scene, max(known))}"
    least = "at most " if enough == min(known) and len(known) > 1 else ""
    return f"{least}{size(scene, enough)}"


def _stall(scene: Scene, name: str) -> Tile:
    question = "Is it copy-bound?"
    found = {s: share for s in scene.slots if (share := scene.mean("stall_share", name, s))}
    if not scene.timed or not found:
        return Tile(question, "no clock" if not scene.timed else "no", "no time spent waiting")
    shares = _span((100 * each for each in found.values()), "{:.0f}")
    bound = [slots for slots, share in found.items() if share >= COPY_BOUND]
    detail = f"{shares} % of the time is spent waiting for copies"
    if not bound:
        return Tile(question, "no", detail)
    if len(bound) == len(found):
        return Tile(question, "yes, at every capacity" if len(found) > 1 else "yes", detail)
    return Tile(question, f"yes, up to {size(scene, max(bound))}", detail)


def _at(scene: Scene, slots: int) -> AtCapacity:
    """Fill the row of a capacity."""
    ranked = scene.leaders[slots]
    best, name = ranked[0]
    names = _first(scene, slots)
    judge = scene.judge
    behind = [each for each in (scene.behind[other][slots] for _, other in ranked) if each > 0]
    gap = min(behind, default=None)
    if gap is None:
        ahead = "-" if len(ranked) < 2 else "tie"
    else:
        ahead = f"{exp(gap) - 1:.1%}" if scene.timed else f"{100 * gap:.1f} points"
        ahead += _unsure(scene, slots)
    base = scene.mean(judge.name, BASELINE, slots)
    against = "-"
    if base and best:
        against = f"{base / best:.2f}x" if scene.timed else f"{100 * (best - base):+.1f} points"
    of_belady = _speed(scene, name, slots, "belady")
    regime = scene.runs[name, slots][0].regime
    bounds = _bounds(scene, slots)
    near = "-" if of_belady is None else f"{of_belady:.0%}".replace("%", " %")
    rate = scene.mean("hit_rate", name, slots)
    if of_belady is None and bounds is not None and bounds.belady.hit_rate is not None:
        near = f"{100 * ((rate or 0) - bounds.belady.hit_rate):+.1f}"
    return AtCapacity(
        slots=slots,
        size=size(scene, slots),
        over_working_set="-" if regime is None else f"{regime.capacity_over_working_set:.2f}",
        best=name + (f" (and {len(names) - 1} alike)" if len(names) > 1 else ""),
        value=three_digits(judge.scaled(best) or 0.0),
        ahead=ahead.replace("%", " %"),
        over_baseline=against,
        of_belady=near,
        over_roofline=METRICS["over_roofline"].text(scene.mean("over_roofline", name, slots)),
        stall=METRICS["stall_share"].text(scene.mean("stall_share", name, slots)),
    )


def _unsure(scene: Scene, slots: int) -> str:
    """Say where repetitions of the best and of the next overlap: it may be the other way round."""
    best, following = (spread(scene.runs[name, slots]) for _, name in scene.leaders[slots][:2])
    overlap = scene.timed and best is not None and following is not None and best[1] >= following[0]
    return ", within spread" if overlap else ""


def _span(values: Iterable[float], form: str) -> str:
    """Spell the least and the largest value, once if they read alike."""
    numbers = sorted(values)
    low, high = form.format(numbers[0]), form.format(numbers[-1])
    return low if low == high else f"{low} to {high}"


def without_result(runs: Sequence[Run]) -> list[tuple[str, str, int, str]]:
    """Group what was skipped or failed: status, reason, how many, of which policies."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.status != "ok":
            reason = run.reason or "no reason recorded"
            groups.setdefault((run.status, reason), []).append(run)
    found = []
    for (status, reason), members in sorted(groups.items(), key=lambda each: -len(each[1])):
        axes = dict.fromkeys(
            f"{run.config.evict} + {run.config.prefetch}"
            if run.config.prefetch != "none"
            else run.config.evict
            for run in members
        )
        names = list(axes)
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        found.append((status, reason, len(members), ", ".join(names[:8]) + more))
    return found
