"""What would buy more: memory, a faster link, a perfect policy, a perfect prefetcher.

Each is simulated like everything else. The two perfect ones know the future: they say how much
better deciding could be, on the same device.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from specmd.advice.question import Question, by_name
from specmd.advice.search import Found, batches, stripped
from specmd.advice.space import PARTS, Composition, composition, spell
from specmd.advice.trials import Batch, Report, Trial, Trials
from specmd.errors import SpecmdError
from specmd.hardware.profile import HardwareProfile, load_profile
from specmd.hardware.toml import profile_text
from specmd.runs.declared import OPTIONS
from specmd.runs.options import parse_bytes
from specmd.runs.run import Run
from specmd.trace import Trace

EXTRA_BYTES = 2_000_000_000
FASTER = 2.0  # the next generation of a link
_TOPS = 1  # compositions of a profile tried again where something else has changed
_AROUND = (0.5, 0.75, 1.5, 2.0)


@dataclass(frozen=True)
class More:
    """What else there could be, for one profile: the value of the objective, in seconds."""

    value_s: float | None
    how: str


@dataclass(frozen=True)
class Size:
    """Which of the finalists is best with another memory."""

    memory_bytes: int
    slots: int
    all_fits: bool
    best: Mapping[str, tuple[Composition, float]]  # by profile: composition, seconds


def bounded(
    question: Question, whole: Trace, found: Found, trials: Trials, report: Report
) -> dict[str, Run]:
    """Run each profile's winner again with its bounds."""
    configs = []
    for name, path in by_name(question).items():
        parts = composition(found.finalists[name][0].run.config)
        configs += replace(question, profiles=(path,)).configs(whole, [parts])
    work = [Batch((stripped(config),), found.steps[2], bounds=True) for config in configs]
    made = trials.run(work, "bounds of the winners", report)
    return {str(trial.run.config.profile): trial.run for trial in made}


def more_memory(
    question: Question, whole: Trace, found: Found, trials: Trials, report: Report
) -> dict[str, More]:
    """Give every profile more memory; its best is tried again."""
    if question.memory == "free":
        return {}
    larger = parse_bytes(question.memory) + EXTRA_BYTES
    configs = [
        config
        for name, best in tops(found).items()
        for config in question.on(name).configs(whole, best, memory=f"{larger}B")
    ]
    made = trials.run(batches(configs, found.steps[2]), "2 GB more", report)
    return _best(question, made)


def faster_link(
    question: Question, whole: Trace, found: Found, trials: Trials, report: Report
) -> dict[str, More]:
    """Double the rate of every profile's link."""
    with TemporaryDirectory(prefix="specmd-") as folder:
        paths = {}
        for name, path in by_name(question).items():
            profile = faster(load_profile(path))
            paths[name] = Path(folder) / f"{profile.name}.toml"
            paths[name].write_text(profile_text(profile), encoding="utf-8")
        configs = [
            config
            for name, best in tops(found).items()
            for config in replace(question, profiles=(str(paths[name]),)).configs(whole, best)
        ]
        made = trials.run(batches(configs, found.steps[2]), "a link twice as fast", report)
    best = _best(question, made)
    return {name: best[paths[name].stem] for name in paths if paths[name].stem in best}


def faster(profile: HardwareProfile) -> HardwareProfile:
    """Return a profile whose link carries twice as much."""
    link = profile.host_link
    generation = link.generation + 1 if link.generation and link.generation < 7 else link.generation
    rates = {
        name: getattr(link, name).model_copy(update={"value": FASTER * getattr(link, name).value})
        for name in ("bytes_per_s", "theoretical_bytes_per_s")
    }
    wider = link.model_copy(update={**rates, "generation": generation})
    return profile.model_copy(update={"name": f"{profile.name}-x2", "host_link": wider})


def perfect_prefetcher(
    question: Question,
    whole: Trace,
    found: Found,
    perfect: Sequence[str],
    trials: Trials,
    report: Report,
) -> dict[str, More]:
    """Let each profile's winner be told the future, some layers ahead: the best depth counts.

    Which depth is best is found on a short prefix.
    """
    configs = []
    for name, path in by_name(question).items():
        parts = composition(found.finalists[name][0].run.config)
        mine = replace(question, profiles=(path,))
        configs += mine.configs(whole, perfect_of(parts, perfect))
    what = "a perfect prefetcher"
    if found.steps[0] < found.steps[2]:
        tried = trials.run(batches(configs, found.ahead_steps), what, report)
        deepest = {(name, each.how) for name, each in _best(question, tried).items()}
        configs = [
            config
            for config in configs
            if (load_profile(config.profile or "").name, spell(composition(config))) in deepest
        ]
    best = _best(question, trials.run(batches(configs, found.steps[2]), what, report))
    return {
        name: replace(each, how=each.how.partition("+ ")[2].partition(" ")[0])
        for name, each in best.items()
    }


def sizes_around(
    question: Question, whole: Trace, found: Found, trials: Trials, report: Report
) -> list[Size]:
    """Let the finalists compete at other memories, on a short prefix."""
    if question.memory == "free":
        return []
    asked = parse_bytes(question.memory)
    header = whole.header
    configs = []
    slots: dict[int, int] = {}
    for share in _AROUND:
        size = int(asked * share)
        try:
            some = [
                config
                for name, best_few in tops(found).items()
                for config in question.on(name).configs(whole, best_few, memory=f"{size}B")
            ]
        except SpecmdError:  # not one expert fits
            continue
        slots[size] = max(config.capacity_slots for config in some)
        configs += some
    made = trials.run(batches(configs, found.ahead_steps), "other memories", report)
    sizes = []
    for size, room in slots.items():
        mine = [
            trial for trial in made if re.fullmatch(rf"{size}B total", trial.run.config.capacity)
        ]
        best: dict[str, tuple[Composition, float]] = {}
        for trial in mine:
            name, value = str(trial.run.config.profile), question.value(trial.run)
            if value < best.get(name, ((), float("inf")))[1]:
                best[name] = composition(trial.run.config), value
        fits = room >= header.num_layers * header.num_experts
        sizes.append(Size(size, room, fits, best))
        if fits:
            break
    return sizes


def tops(found: Found) -> dict[str, list[Composition]]:
    """Return the best compositions of every profile, as many as are tried again."""
    return {
        name: [composition(trial.run.config) for trial in ranking[:_TOPS]]
        for name, ranking in found.finalists.items()
    }


def perfect_of(parts: Composition, perfect: Sequence[str]) -> list[Composition]:
    """Return the composition with each of the prefetchers that know the future.

    Its miss handling is what it is, or waits: who computes on the host what is on its way anyway
    gains nothing by knowing.
    """
    named = dict(zip(PARTS, parts, strict=True))
    misses = dict.fromkeys((named["miss"], OPTIONS["miss"].default))
    return [
        tuple((named | {"prefetch": each, "miss": miss}).values())
        for miss in misses
        for each in perfect
    ]


def _best(question: Question, trials: Iterable[Trial]) -> dict[str, More]:
    found: dict[str, More] = {}
    for trial in trials:
        name, value = str(trial.run.config.profile), question.value(trial.run)
        known = found.get(name)
        if value < float("inf") and (known is None or value < (known.value_s or 0)):
            found[name] = More(value, spell(composition(trial.run.config)))
    return found
