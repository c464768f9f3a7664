"""The search: three rungs, on ever longer prefixes of the trace, with ever fewer compositions.

1. Every eviction in every scope, allocation and miss handling, without prefetch: what decides is
   the same on all profiles, so one replay serves them all.
2. The best of them again, on more of the trace; and the very best evictions, in every scope, with
   every prefetcher. A prefetch competes with misses for the link, so each profile is its own case:
   from its best it goes on as long as changing one axis helps. What prefetches takes longer to
   compile and to simulate: the eviction stays, and the prefix is shorter.
3. The finalists of every profile, on the whole trace, or on as much as a question may take.

A rung's prefix is as long as its share of the work allows; a short trace is whole on every rung.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from specmd.advice.prefix import steps_of
from specmd.advice.question import Question
from specmd.advice.space import PARTS, SCOPES, Composition, Space, composition, is_apart
from specmd.advice.trials import Batch, Report, Trial, Trials
from specmd.errors import SpecmdError
from specmd.policy.registry import is_lossy
from specmd.runs.declared import COMPOSED, OPTIONS
from specmd.runs.options import RunConfig
from specmd.runs.run import Run
from specmd.trace import Trace

FIRST_ACCESSES, SECOND_ACCESSES, LAST_ACCESSES = 2_000_000, 4_000_000, 8_000_000
AHEAD_ACCESSES, BRIEF_ACCESSES = 500_000, 30_000  # with prefetchers
_WITHOUT, _BASES, _AHEAD, _FINALISTS = 8, 3, 2, 4  # how many survive, on each profile
_BASES_ACCESSES = 3_000_000  # that the first prefetchers may take: short traces have more bases
_ROUNDS = 3  # of changing one axis
_NEAR = 1.1  # who is slower than the best by more than that does not survive
_HOPEFUL, _CLOSE = 1.3, 1.05  # the same of a first impression, and of a finalist

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
    ahead_steps: int
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
        self.ahead_steps = steps_of(played, AHEAD_ACCESSES)
        self.brief_steps = steps_of(played, BRIEF_ACCESSES)
        self.hopeful: set[str] = set()
        prefetchers, misses = (len(space.candidates[axis]) for axis in ("prefetch", "miss"))
        each = played.expert_ids.size * prefetchers * misses * len(SCOPES) * len(question.profiles)
        self.bases = max(_BASES, _BASES_ACCESSES // each)
        self.tried: set[Composition] = set()
        self.failed: dict[Composition, str] = {}

    def run(self, report: Report) -> Found:
        """Climb the rungs."""
        idle = list(self.space.compositions(("evict", "miss")))
        first = self._try(idle, self.steps[0], "rung 1 of 3: evictions, without prefetch", report)
        near = [each for best in self._best(first, _AHEAD) for each in self._neighbours(best)]
        first += self._try(_unique(near), self.steps[0], "rung 1 of 3: one axis changed", report)
        without = self._best(first, _WITHOUT)
        again = self._try(without, self.steps[1], "rung 2 of 3: the best of them again", report)
        ahead = self._with_prefetch(self._bases(first), report)
        configs = []
        for name in _profiles(again):
            best = [
                *self._best_of(again, name, _FINALISTS, _CLOSE),
                *self._best_of(ahead, name, _FINALISTS, _CLOSE),
            ]
            configs += self.question.on(name).configs(self.whole, _unique([*best, DEFAULT]))
        what = "rung 3 of 3: finalists"
        third = self._make(configs, self.steps[2], what, report, times=True)
        if not any(self.question.value(trial.run) < float("inf") for trial in third):
            raise SpecmdError(
                f"no composition could be measured by {self.question.objective}: "
                f"{next(iter(self.failed.values()), 'the trace has nothing whole of it')}"
            )
        ranked = {name: self._rank(third, name) for name in _profiles(third)}
        default = {
            name: next(t for t in found if composition(t.run.config) == DEFAULT)
            for name, found in ranked.items()
        }
        tried = len(self.tried - set(self.failed))
        return Found(ranked, default, tried, self.steps, self.ahead_steps, self.failed)

    def _bases(self, trials: Sequence[Trial]) -> list[Composition]:
        """Return, of the best evictions of every profile, the best in each scope."""
        found: list[Composition] = []
        for profile in _profiles(trials):
            usual = OPTIONS["miss"].default  # where the host computes, they may all decide alike
            ranked = [
                composition(trial.run.config)
                for trial in self._rank(trials, profile)
                if trial.run.config.miss == usual
            ]
            names = _unique_texts(_policy(each) for each in ranked)[: self.bases]
            for name in names:
                mine = [each for each in ranked if _policy(each) == name]
                scopes = {_part(each, "scope"): each for each in reversed(mine)}
                found += scopes.values()
        return _unique(found)

    def _with_prefetch(self, bases: Sequence[Composition], report: Report) -> list[Trial]:
        """Try prefetchers, then climb from the best of each profile."""
        ahead = self.space.candidates["prefetch"]
        plain = [each for each in ahead if each != "none" and ":" not in each]
        if not plain:
            return []
        tries = [
            _with(base, prefetch=each, miss=miss)
            for base in bases
            for each in plain
            for miss in self.space.candidates["miss"]
        ]
        what = "rung 2 of 3: prefetchers"
        brief = self._try(tries, self.brief_steps, what, report)
        tries = self._best(brief, len(tries), near=_HOPEFUL)  # a bad one takes long to simulate
        self.hopeful = {_part(each, "prefetch").partition(":")[0] for each in tries}
        found = self._try([*bases, *tries], self.ahead_steps, what, report)
        for _ in range(_ROUNDS):
            configs = []
            for name in _profiles(found):
                known = {composition(t.run.config) for t in found if _is_of(t, name)}
                mine = [t for t in found if _is_of(t, name) and t.run.config.prefetch != "none"]
                near = [
                    each
                    for best in self._best_of(mine, name, _AHEAD, _NEAR)
                    for each in self._neighbours(best)
                    if each not in known
                ]
                configs += self.question.on(name).configs(self.whole, _unique(near))
            if not configs:
                break
            found += self._make(configs, self.ahead_steps, "rung 2 of 3: one axis changed", report)
        return found

    def _neighbours(self, parts: Composition) -> list[Composition]:
        """Change one axis; of evictions only the parameters, for another would be compiled."""
        found = [_with(parts, scope=scope) for scope in SCOPES]
        for axis, names in self.space.candidates.items():
            found += [
                _with(parts, **{axis: name})
                for name in names
                if (axis != "evict" or name.partition(":")[0] == _policy(parts))
                and (axis != "prefetch" or name.partition(":")[0] in self.hopeful)
            ]
        return [each for each in found if each != parts and is_apart(each)]

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
        return self._make(configs, steps, what, report, times=times)

    def _make(
        self,
        configs: Sequence[RunConfig],
        steps: int,
        what: str,
        report: Report,
        *,
        times: bool = False,
    ) -> list[Trial]:
        self.tried.update(composition(config) for config in configs)
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
        mine = [trial for trial in trials if _is_of(trial, profile)]
        return sorted(mine, key=lambda trial: self.question.value(trial.run))

    def _best(
        self, trials: Sequence[Trial], most: int, *, near: float = _NEAR
    ) -> list[Composition]:
        """Return the best few of every profile; of those that decide alike, the first one."""
        return _unique(
            each
            for profile in _profiles(trials)
            for each in self._best_of(trials, profile, most, near)
        )

    def _best_of(
        self, trials: Sequence[Trial], profile: str, most: int, near: float
    ) -> list[Composition]:
        """Return the best few of a profile, none slower than `near` times the best."""
        seen: list[float] = []
        found = []
        for trial in self._rank(trials, profile):
            value = self.question.value(trial.run)
            if len(seen) >= most or (seen and value > near * seen[0]):
                break
            if value not in seen:
                seen.append(value)
                found.append(composition(trial.run.config))
        return found


def batches(
    configs: Iterable[RunConfig], steps: int, *, times: bool = False, bounds: bool = False
) -> list[Batch]:
    """Put together what shares a kernel: an eviction, and whether anything is prefetched."""
    found: dict[tuple[str, bool], list[RunConfig]] = {}
    for config in configs:
        kernel = config.evict.partition(":")[0], config.prefetch == "none"
        found.setdefault(kernel, []).append(stripped(config))
    for each in found.values():
        each.sort(key=composition)  # what decides alike stands together
    return [Batch(tuple(each), steps, bounds, times) for each in found.values()]


def stripped(config: RunConfig) -> RunConfig:
    """Return a run of the trace as it is played: what made it of the recorded one is done."""
    return config.model_copy(update={name: OPTIONS[name].default for name in COMPOSED})


def _profiles(trials: Iterable[Trial]) -> list[str]:
    return list(dict.fromkeys(str(trial.run.config.profile) for trial in trials))


def _unique_texts(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _is_of(trial: Trial, profile: str) -> bool:
    return trial.run.config.profile == profile


def _policy(parts: Composition) -> str:
    return _part(parts, "evict").partition(":")[0]


def _unique(compositions: Iterable[Composition]) -> list[Composition]:
    return list(dict.fromkeys(compositions))


def _part(parts: Composition, name: str) -> str:
    return parts[PARTS.index(name)]


def _with(parts: Composition, **changes: str) -> Composition:
    return tuple(changes.get(name, value) for name, value in zip(PARTS, parts, strict=True))
