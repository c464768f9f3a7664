"""The answer: the best composition for each device, how sure that is, and what would buy more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from specmd.advice import more as buying
from specmd.advice.more import More, Size
from specmd.advice.plot import Curves, trace_curves
from specmd.advice.question import METRIC, Question, by_name, fitting_objective
from specmd.advice.requests import Lead, Spread, lead, spread
from specmd.advice.search import DEFAULT, Search
from specmd.advice.space import Composition, composition, make_space, only_defaults
from specmd.advice.trials import Report, Trials
from specmd.errors import SpecmdError
from specmd.hardware.machine import cores
from specmd.hardware.profile import load_profile
from specmd.policy.needs import offered
from specmd.policy.registry import add_plugin
from specmd.runs.options import parse_bytes
from specmd.runs.run import Run
from specmd.simulation.simulate import prepared
from specmd.trace import Trace, load


@dataclass(frozen=True)
class Column:
    """The answer for one profile.

    Attributes:
        profile: its name; `asked` is what it was asked for as.
        winner: its run, with bounds.
        ranking: the finalists, best first, and their seconds.
        second: the first of them that does not decide as the winner does.
        tpot, ttft: how the winner's means would move with other requests.
        lead: over the second.
        default: the run of who asks nobody.
        more: what would buy more, by what it is.

    """

    profile: str
    asked: str
    winner: Run
    ranking: tuple[tuple[Composition, float], ...]
    second: Run | None
    tpot: Spread | None
    ttft: Spread | None
    lead: Lead | None
    default: Run
    more: Mapping[str, More]

    @property
    def composition(self) -> Composition:
        """What wins."""
        return composition(self.winner.config)


@dataclass(frozen=True)
class Answer:
    """All columns, and what they are worth; `training` and `plugins` are the files it rests on."""

    question: Question
    trace: str
    model: str
    requests: int
    slots: int
    keys: int
    columns: tuple[Column, ...]
    sizes: tuple[Size, ...]
    tried: int
    accesses: tuple[int, int, int]  # of the prefixes of the three rungs
    whole: bool  # the last rung saw the whole trace
    skipped: Mapping[str, str]
    failed: Mapping[Composition, str]
    curves: Curves = field(default_factory=dict)
    training: str | None = None
    plugins: tuple[str, ...] = ()

    @property
    def all_fits(self) -> bool:
        """Every expert fits: there is nothing to choose."""
        return self.slots >= self.keys


def recommend(
    trace: Trace | str | PathLike[str],
    question: Question,
    *,
    training: Trace | str | PathLike[str] | None = None,
    plugins: Sequence[str | PathLike[str]] = (),
    workers: int | None = None,
    curves: bool = False,
    report: Report = lambda what, done, total: None,
) -> Answer:
    """Recommend a composition of policies.

    Args:
        trace: a trace, or the path of one.
        question: what is asked.
        training: trace that policies fitted beforehand are fitted on.
        plugins: files or folders with more policies.
        workers: processes; by default one for each core.
        curves: trace the objective against memory, too.
        report: told what is waited for.

    Raises:
        SpecmdError: bad input, or a memory that does not hold one expert.

    """
    whole, name = (trace, "") if isinstance(trace, Trace) else (load(trace), Path(trace).stem)
    learned = training if isinstance(training, Trace | None) else load(training)
    for path in plugins:
        add_plugin(Path(path))
    profiles = [load_profile(path) for path in question.profiles]
    if not profiles:
        raise SpecmdError("name the device: --profile (see `specmd list profiles`)")
    names = [profile.name for profile in profiles]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise SpecmdError(f"two profiles are called {doubled[0]}: give each a name of its own")
    for profile in profiles if question.memory != "free" else ():
        if parse_bytes(question.memory) > profile.memory_bytes.value:
            there = profile.memory_bytes.value / 1e9
            raise SpecmdError(f"{profile.name} has {there:.1f} GB: ask for no more --memory")
    asked = question.configs(whole, [DEFAULT])
    played = prepared(whole, asked[0])
    fitting_objective(played, question.objective)
    keys = played.header.num_layers * played.header.num_experts
    space = make_space(
        offered(played, learned),
        played.header.num_layers,
        lossy=question.quality is not None,
        live=question.live,
    )
    fits = asked[0].capacity_slots >= keys
    if fits:
        space = only_defaults(space)  # there is nothing to choose
    with Trials(played, learned, [str(path) for path in plugins], workers or cores()) as trials:
        found = Search(question, whole, played, space, trials).run(report)
        winners = buying.bounded(question, whole, found, trials, report)
        gains: dict[str, dict[str, More]] = {}
        sizes: list[Size] = []
        if not fits:
            gains = {
                "2 GB more": buying.more_memory(question, whole, found, trials, report),
                "link twice as fast": buying.faster_link(question, whole, found, trials, report),
                "perfect prefetcher": buying.perfect_prefetcher(
                    question, whole, found, space.perfect, trials, report
                ),
            }
            sizes = buying.sizes_around(question, whole, found, trials, report)
        lines: Curves = {}
        if curves and question.memory != "free":
            size = max(played.header.layer_bytes or (0,))
            asked_slots = asked[0].capacity_slots
            lines = trace_curves(
                question, whole, found, space.perfect, asked_slots, size, trials, report
            )
    columns = []
    for device, path in by_name(question).items():
        ranking = found.finalists[device]
        first = ranking[0]
        second = next((each for each in ranking if not _alike(question, each.run, first.run)), None)
        more = {what: each[device] for what, each in gains.items() if device in each}
        seed = question.seed
        columns.append(
            Column(
                device,
                path,
                winners[device],
                tuple((composition(t.run.config), question.value(t.run)) for t in ranking),
                None if second is None else second.run,
                spread(first.times, "tpot", seed),
                spread(first.times, "ttft", seed),
                lead(first.times, second.times, question.objective, seed) if second else None,
                found.default[device].run,
                _with_bounds(more, winners[device], question),
            )
        )
    per_step = played.expert_ids.size / played.num_steps
    return Answer(
        question,
        name or whole.header.model,
        whole.header.model,
        played.num_requests,
        asked[0].capacity_slots,
        keys,
        tuple(columns),
        tuple(sizes),
        found.tried,
        tuple(int(steps * per_step) for steps in found.steps),  # type: ignore[arg-type]
        found.steps[2] >= played.num_steps,
        space.skipped,
        found.failed,
        lines,
        None if training is None or isinstance(training, Trace) else str(training),
        tuple(map(str, plugins)),
    )


def _with_bounds(more: Mapping[str, More], run: Run, question: Question) -> dict[str, More]:
    """Add what the bounds of a run say."""
    found = dict(more)
    if run.bounds is not None:
        metric = METRIC[question.objective]
        best = getattr(run.bounds.belady_bypass, metric)
        found["perfect policy"] = More(best, "Belady, who may refuse to admit")
        found["all experts resident"] = More(getattr(run.bounds.all_resident, metric), "")
    return found


def _alike(question: Question, one: Run, other: Run) -> bool:
    return question.value(one) == question.value(other)
