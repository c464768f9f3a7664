"""The search: three rungs, on ever longer prefixes of the trace, with ever fewer compositions.

1. Every eviction in every scope, allocation and miss handling, without prefetch: what decides is
   the same on all profiles, so one replay serves them all.
2. The best of them with every prefetcher; then the best of those with every schedule and miss
   handling. A prefetch competes with misses for the link, so each profile is its own case.
3. The finalists of every profile, on the whole trace.

A rung's prefix is as long as its share of the work allows; a short trace is whole on every rung.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from specmd.advice.prefix import steps_of
from specmd.advice.question import Question
from specmd.advice.space import PARTS, Composition, Space, composition, is_lossy
from specmd.advice.trials import Batch, Report, Trial, Trials
from specmd.runs.declared import COMPOSED, OPTIONS
from specmd.runs.options import RunConfig
from specmd.runs.run import Run
from specmd.trace import Trace

FIRST_ACCESSES, SECOND_ACCESSES, LAST_ACCESSES = 2_000_000, 4_000_000, 60_000_000
_WITHOUT, _BASES, _AHEAD, _FINALISTS = 8, 2, 2, 4  # how many survive, on each profile

DEFAULT: Composition = tuple(OPTIONS[part].default for part in PARTS)
"""What is run by who asks nobody."""


@dataclass
class Found:
    """What the search came to.

    Attributes:
        finalists: trials on the last rung, by profile, best first; all that tie are here.
        default: the trial of DEFAULT on each profile.
        tried: distinct compositions that were run at all.
        steps: of the three rungs' prefixes.
        failed: reasons of runs that failed, by composition.

    """

    finalists: dict[str, list[Trial]]
    default: dict[str, Trial]
    tried: int
    steps: tuple[int, int, int]
    failed: dict[Composition, str] = field(default_factory=dict)


class Search:
    """One search; `run` makes it."""

    def __init__(
        self, question: Question, whole: Trace, played: Trace, space: Space, trials: Trials
    ) -> None:
        self.question, self.whole, self.space, self.trials = question, whole, space, trials
        self.steps = (
            steps_of(played, FIRST_ACCESSES),
            steps_of(played, SECOND_ACCESSES),
            steps_of(played, LAST_ACCESSES),
        )
        self.tried: set[Composition] = set()
        self.failed: dict[Composition, str] = {}

    def run(self, report: Report) -> Found:
        """Climb the rungs."""
        idle = [each for each in self.space.compositions() if _part(each, "prefetch") == "none"]
        first = self._try(idle, self.steps[0], "rung 1 of 3: evictions, without prefetch", report)
        without = self._best(first, _WITHOUT)
        again = self._try(without, self.steps[1], "rung 2 of 3: the best of them again", report)
        ahead = self._with_prefetch(self._best(again, _BASES, distinct=True), report)
        second = again + ahead
        last = _unique([*self._best(second, _FINALISTS), *self._best(again, 2), DEFAULT])
        what = "rung 3 of 3: finalists, on the whole trace"
        third = self._try(last, self.steps[2], what, report, times=True)
        if not any(self.question.value(trial.run) < float("inf") for trial in third):
            third = second
        ranked = {name: self._rank(third, name) for name in _profiles(third)}
        default = {
            name: next(t for t in found if composition(t.run.config) == DEFAULT)
            for name, found in ranked.items()
        }
        tried = len(self.tried - set(self.failed))
        return Found(ranked, default, tried, self.steps, self.failed)

    def _with_prefetch(self, bases: Sequence[Composition], report: Report) -> list[Trial]:
        ahead = [each for each in self.space.candidates["prefetch"] if each != "none"]
        if not ahead:
            return []
        tries = [_with(base, prefetch=each) for base in bases for each in ahead]
        found = self._try(tries, self.steps[1], "rung 2 of 3: prefetchers", report)
        best = self._best(found, _AHEAD)
        tries = [
            _with(each, schedule=schedule, miss=miss)
            for each in best
            for schedule in self.space.candidates["schedule"]
            for miss in self.space.candidates["miss"]
        ]
        tries = [each for each in _unique(tries) if each not in self.tried]
        return found + self._try(tries, self.steps[1], "rung 2 of 3: schedules", report)

    def _try(
        self,
        tries: Sequence[Composition],
        steps: int,
        what: str,
        report: Report,
        *,
        times: bool = False,
    ) -> list[Trial]:
        configs = self.question.configs(self.whole, list(tries))
        self.tried.update(tries)
        found = self.trials.run(batches(configs, steps, times=times), what, report)
        for trial in found:
            if trial.run.status != "ok":
                self.failed[composition(trial.run.config)] = trial.run.reason
        return [trial for trial in found if trial.run.status == "ok" and self._is_good(trial.run)]

    def _is_good(self, run: Run) -> bool:
        """Whether its quality is known where it is wanted."""
        return not is_lossy(run.config) or run.metrics.get("kept_mass") is not None

    def _rank(self, trials: Iterable[Trial], profile: str) -> list[Trial]:
        """Trials of a profile, best first; of equals the one that was tried first."""
        mine = [trial for trial in trials if trial.run.config.profile == profile]
        return sorted(mine, key=lambda trial: self.question.value(trial.run))

    def _best(
        self, trials: Sequence[Trial], most: int, *, distinct: bool = False
    ) -> list[Composition]:
        """Return the best few of every profile; of those that decide alike, the first one.

        `distinct` takes as many eviction policies, each at its best.
        """
        found: list[Composition] = []
        for profile in _profiles(trials):
            seen: set[object] = set()
            for trial in self._rank(trials, profile):
                config = trial.run.config
                alike = trial.run.decision_digest, self.question.value(trial.run)
                mark = config.evict.partition(":")[0] if distinct else alike
                if mark not in seen and len(seen) < most:
                    seen.add(mark)
                    found.append(composition(config))
        return _unique(found)


def batches(
    configs: Iterable[RunConfig], steps: int, *, times: bool = False, bounds: bool = False
) -> list[Batch]:
    """Put together what shares a kernel: an eviction, and whether anything is prefetched."""
    found: dict[tuple[str, bool], list[RunConfig]] = {}
    for config in configs:
        kernel = config.evict.partition(":")[0], config.prefetch == "none"
        found.setdefault(kernel, []).append(stripped(config))
    return [Batch(tuple(each), steps, bounds, times) for each in found.values()]


def stripped(config: RunConfig) -> RunConfig:
    """Return a run of the trace as it is played: what made it of the recorded one is done."""
    return config.model_copy(update={name: OPTIONS[name].default for name in COMPOSED})


def _profiles(trials: Iterable[Trial]) -> list[str]:
    return list(dict.fromkeys(str(trial.run.config.profile) for trial in trials))


def _unique(compositions: Iterable[Composition]) -> list[Composition]:
    return list(dict.fromkeys(compositions))


def _part(parts: Composition, name: str) -> str:
    return parts[PARTS.index(name)]


def _with(parts: Composition, **changes: str) -> Composition:
    return tuple(changes.get(name, value) for name, value in zip(PARTS, parts, strict=True))
