"""Scenes: runs that one figure may show together, and the compositions of policies in them.

A scene is a trace on a device in a setting, measured or simulated; within it runs differ in their
policies and in capacity. Its figures have a line a composition. Sweeps have more compositions than
a figure can hold, so each scene says which come first; the others are a click away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log

from specmd.policy.registry import AXES
from specmd.report.names import caption, is_clairvoyant, policy_name, varied_axes
from specmd.runs.declared import OPTIONS, spelled
from specmd.runs.identity import SPELLED
from specmd.runs.metrics import METRICS, Metric
from specmd.runs.options import RunConfig
from specmd.runs.run import Run

MOST_LINES = 10
"""Compositions that a scene's figures show at first."""

_OF_THE_DEVICE = ("engine", "shape", "context")
_CONTRACT = tuple(
    name
    for name in RunConfig.model_fields
    if name not in (*AXES, *SPELLED, "seed", "profile", "capacity_slots", *_OF_THE_DEVICE)
)


@dataclass(frozen=True)
class Composition:
    """The policies of all axes, under the name that tables have for them."""

    name: str
    evict: str
    clairvoyant: bool
    axes: Mapping[str, str]


@dataclass(frozen=True)
class Scene:
    """A trace on a device in a setting; `runs` are those with numbers, by composition and slots."""

    trace: str
    device: str
    measured: bool
    setting: str
    runs: Mapping[tuple[str, int], tuple[Run, ...]]
    compositions: Mapping[str, Composition]

    @property
    def place(self) -> str:
        """The device without the word that a badge has beside it."""
        found = re.fullmatch(r"(?:simulated|measured) \((.*)\)", self.device)
        return found[1] if found else self.device

    @property
    def title(self) -> str:
        """Name the scene in one line, for a badge to stand beside."""
        return ", ".join(filter(None, (self.trace, self.place, self.setting)))

    @property
    def slots(self) -> list[int]:
        """Capacities, from the smallest."""
        return sorted({slots for _, slots in self.runs})

    @property
    def some_run(self) -> Run:
        """A run of it, for what all of them share."""
        return next(iter(self.runs.values()))[0]

    @cached_property
    def judge(self) -> Metric:
        """The metric by which policies are ranked: TPOT, or the hit rate without a clock."""
        timed = any(value(run, "tpot_s") is not None for each in self.runs.values() for run in each)
        return METRICS["tpot_s" if timed else "hit_rate"]

    @property
    def timed(self) -> bool:
        """Whether policies are ranked by their time."""
        return self.judge.name == "tpot_s"

    @cached_property
    def judged(self) -> dict[str, dict[int, float]]:
        """By composition and slots, what `judge` says."""
        found: dict[str, dict[int, float]] = {}
        for name, slots in self.runs:
            judged = self.mean(self.judge.name, name, slots)
            if judged is not None:
                found.setdefault(name, {})[slots] = judged
        return found

    @cached_property
    def leaders(self) -> dict[int, list[tuple[float, str]]]:
        """By slots, every composition that does not know the future and its value, best first."""
        found: dict[int, list[tuple[float, str]]] = {}
        for name, judged in self.judged.items():
            if not self.compositions[name].clairvoyant:
                for slots, each in judged.items():
                    found.setdefault(slots, []).append((each, name))
        lower = self.judge.better == "lower"
        return {slots: sorted(each, reverse=not lower) for slots, each in sorted(found.items())}

    @cached_property
    def behind(self) -> dict[str, dict[int, float]]:
        """By composition and slots, how far it is behind the best: log of a ratio, or points."""
        lower = self.judge.better == "lower"
        return {
            name: {
                slots: log(each / best) if lower and each > 0 < best else abs(best - each)
                for slots, each in judged.items()
                if (best := self.leaders.get(slots, [(each, "")])[0][0]) is not None
            }
            for name, judged in self.judged.items()
        }

    def mean(self, name: str, composition: str, slots: int) -> float | None:
        """Return the mean of a metric over the runs of a point: seeds, or the same run twice."""
        found = [value(run, name) for run in self.runs.get((composition, slots), ())]
        known = [each for each in found if each is not None]
        return sum(known) / len(known) if known else None


def value(run: Run, name: str) -> float | None:
    """Return a metric of a run as a float; None if it has none."""
    found = run.metrics.get(name)
    return None if found is None else float(found)


def slots_bytes(run: Run) -> int | None:
    """Return the bytes of a run's slots; None if the size of an expert is not known."""
    known = run.regime.slots_bytes if run.regime is not None else None
    each = run.trace.expert_bytes
    return known if known is not None or each is None else run.config.capacity_slots * each


def scenes(runs: Sequence[Run]) -> list[Scene]:
    """Group the runs that have numbers, in the order in which they come."""
    ok = [run for run in runs if run.status == "ok" and run.metrics.get("hit_rate") is not None]
    varied = [axis for axis in varied_axes(ok) if axis != "seed"]
    said = settings(ok)
    names = trace_names(ok)
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run, setting in zip(ok, said, strict=True):
        key = (names[run.trace.digest, run.trace.name], caption(run), setting)
        groups.setdefault(key, []).append(run)
    found = []
    for (trace, device, setting), members in groups.items():
        points: dict[tuple[str, int], list[Run]] = {}
        compositions: dict[str, Composition] = {}
        for run in members:
            name = policy_name(run, varied)
            points.setdefault((name, run.config.capacity_slots), []).append(run)
            axes: dict[str, str] = {axis: getattr(run.config, axis) for axis in AXES}
            evict = run.config.evict.partition(":")[0]
            compositions.setdefault(name, Composition(name, evict, is_clairvoyant(run), axes))
        measured = members[0].source == "measured"
        made = {key: tuple(each) for key, each in points.items()}
        found.append(Scene(trace, device, measured, setting, made, compositions))
    return found


def trace_names(runs: Iterable[Run]) -> dict[tuple[str, str], str]:
    """Name traces; two of one name are told apart by their digests."""
    keys = dict.fromkeys((run.trace.digest, run.trace.name) for run in runs)
    taken = [name for _, name in keys]
    return {
        (digest, name): name if taken.count(name) == 1 else f"{name} {digest[:6]}"
        for digest, name in keys
    }


def settings(runs: Sequence[Run]) -> list[str]:
    """Say of each run what differs between runs of its trace beside policy, capacity and device."""
    differs: dict[tuple[str, ...], dict[str, set[object]]] = {}

    def places(run: Run) -> list[tuple[tuple[str, ...], dict[str, object]]]:
        config, trace = run.config, run.trace.digest
        contract = {name: getattr(config, name) for name in _CONTRACT}
        own: dict[str, object] = {name: getattr(config, name) for name in _OF_THE_DEVICE}
        own["code"] = run.provenance.get("source_digest")
        return [((trace,), contract), ((trace, caption(run)), own)]

    for run in runs:
        for place, facts in places(run):
            for name, fact in facts.items():
                differs.setdefault(place, {}).setdefault(name, set()).add(fact)
    found = []
    for run in runs:
        words = []
        for place, facts in places(run):
            told = {name: fact for name, fact in facts.items() if len(differs[place][name]) > 1}
            code = told.pop("code", None)
            words += spelled(told) or [_usual(name) for name in told]
            words += [f"code {str(code)[:8]}"] if code else []
        found.append(", ".join(words))
    return found


def _usual(name: str) -> str:
    default = OPTIONS[name].default if name in OPTIONS else None
    plain = name.replace("_", " ")
    return f"no {plain}" if default in (None, False) else f"{plain} {default}"


def order(scene: Scene) -> list[str]:
    """Order compositions of a scene by what to look at first.

    The best of each eviction policy, then the best with each policy of every other axis, then the
    rest; each time the better first. Those that know the future come last.
    """
    best = sorted(scene.compositions, key=lambda name: _place(scene, name))
    real = [name for name in best if not scene.compositions[name].clairvoyant]
    first: dict[str, None] = {}
    for axis in AXES:
        taken: set[str] = set()
        for name in real:
            policy = scene.compositions[name].axes[axis]
            if policy not in taken:
                taken.add(policy)
                first.setdefault(name)
    return list(first | dict.fromkeys(real) | dict.fromkeys(best))


def shown(scene: Scene) -> list[str]:
    """Return compositions in order, without those that know the future where bounds say it too."""
    names = order(scene)
    bounded = any(run.bounds for runs in scene.runs.values() for run in runs)
    real = [name for name in names if not (bounded and scene.compositions[name].clairvoyant)]
    return real or names


def _place(scene: Scene, name: str) -> tuple[int, float, str]:
    """Sort key: those with all capacities first, then by how far behind the best, on average."""
    behind = scene.behind.get(name, {})
    return -len(behind), sum(behind.values()) / max(1, len(behind)), name


def winner(scene: Scene) -> str | None:
    """Name the composition that is least behind over all capacities."""
    real = [name for name, found in scene.compositions.items() if not found.clairvoyant]
    return min(real, key=lambda name: _place(scene, name)) if real else None
