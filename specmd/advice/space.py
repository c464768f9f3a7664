"""What there is to choose from: every policy of every axis, as the registry has them.

A policy is tried with its defaults, with each other value of a parameter that has few (a word, yes
or no), and, where it looks ahead, some layers farther; numbers stay as their authors set them.
Nobody knows the future, so what asks for it is no candidate, nor is what the trace cannot feed.
What changes the result is one only where its quality was asked for.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from specmd.policy.needs import Offer, unmet
from specmd.policy.registry import AXES, Axis, Choice, Entry, choose, entries
from specmd.runs.declared import OPTIONS
from specmd.runs.options import RunConfig

SCOPES: tuple[str, ...] = typing.get_args(OPTIONS["scope"].kind)
PARTS = (*AXES, "scope")
"""Options that make up a composition."""

VARIED: tuple[Axis, ...] = ("evict", "prefetch", "schedule", "miss")
"""Axes whose policies are tried with each other; those of the rest are tried with the best."""

Composition = tuple[str, ...]
"""Values of PARTS, in that order."""

_AHEAD = (2, 4)  # further layers ahead that are tried


@dataclass(frozen=True)
class Space:
    """Candidates by axis, each axis's default first; and who is none, with the reason."""

    candidates: dict[Axis, tuple[str, ...]]
    perfect: tuple[str, ...]  # prefetchers that know the future: bounds, at several depths
    skipped: dict[str, str]  # "axis name": reason

    def compositions(self, varied: Iterable[Axis] = VARIED) -> Iterator[Composition]:
        """All that differ in some axes; the order is that of the registry, defaults first."""
        varied = set(varied)
        axes = [self.candidates[a] if a in varied else self.candidates[a][:1] for a in AXES]
        for scope, *values in product(SCOPES, *axes):
            parts = _asked((*values, scope))
            if is_apart(parts):
                yield parts


def make_space(offer: Offer, layers: int, *, lossy: bool = False, live: bool = False) -> Space:
    """List the candidates for what a trace offers.

    `lossy` admits those that change the result, `live` only those that a live cache which follows a
    trace can be run with.
    """
    found: dict[Axis, list[str]] = {axis: [OPTIONS[axis].default] for axis in AXES}
    perfect: list[str] = []
    skipped: dict[str, str] = {}
    for entry in entries():
        spelled = [choice.spelled for choice in _variants(entry, layers)]
        name = f"{entry.axis} {entry.name}"
        if "future" in entry.needs:
            skipped[name] = "knows the future"
            perfect += spelled if entry.axis == "prefetch" else []
        elif reason := unmet(Choice.usual(entry), offer):
            skipped[name] = reason.partition(":")[0]
        elif entry.lossy and not lossy:
            skipped[name] = "lossy, and no --quality is asked for"
        elif live and not runs_live(Choice.usual(entry)):
            skipped[name] = "not in a live cache that follows a trace"
        else:
            fit = [each for each in spelled if not unmet(choose(entry.axis, each), offer)]
            found[entry.axis] += [each for each in fit if each not in found[entry.axis]]
    candidates = {axis: tuple(names) for axis, names in found.items()}
    return Space(candidates, tuple(perfect), skipped)


def runs_live(choice: Choice) -> bool:
    """Tell whether a live cache that follows a trace can be run with a policy."""
    axis, there = choice.entry.axis, Offer(future=False, training=True, lookahead=0)
    if not OPTIONS[axis].live and choice.spelled != OPTIONS[axis].default:
        return False
    return not choice.entry.simulated_only and not unmet(choice, there)


def only_defaults(space: Space) -> Space:
    """Return a space in which there is nothing to choose."""
    candidates: dict[Axis, tuple[str, ...]] = {axis: (OPTIONS[axis].default,) for axis in AXES}
    return Space(candidates, (), space.skipped)


def _variants(entry: Entry, layers: int) -> list[Choice]:
    """Choose a policy with its defaults, then with one parameter changed at a time."""
    usual = Choice.usual(entry)
    hints = typing.get_type_hints(entry.cls.create)
    found = [usual]
    for name, value in usual.values.items():
        kind = hints.get(name)
        others: Sequence[object] = ()
        if kind is bool:
            others = (not value,)
        elif typing.get_origin(kind) is typing.Literal:
            others = [each for each in typing.get_args(kind) if each != value]
        elif name == entry.ahead:
            others = [each for each in _AHEAD if each != value and each < layers]
        found += [replace(usual, values=usual.values | {name: other}) for other in others]
    return found


def is_apart(parts: Composition) -> bool:
    """Tell whether a composition is none that others are, spelled with what changes nothing."""
    chosen = dict(zip(PARTS, parts, strict=True))
    usual = {axis for axis in AXES if chosen[axis] == OPTIONS[axis].default}
    if "prefetch" in usual and "schedule" not in usual:
        return False  # there is nothing to schedule
    if chosen["scope"] == SCOPES[0] and "allocate" not in usual:
        return False  # there are no layers to share among
    return _asked(parts) == parts


def _asked(parts: Composition) -> Composition:
    """Return a composition as it is run: an eviction policy that refuses has to be asked."""
    chosen = dict(zip(PARTS, parts, strict=True))
    evict = choose("evict", chosen["evict"])
    if evict.frozen or evict.bypasses:
        chosen["admission"] = "bypass"
    return tuple(chosen.values())


def composition(config: RunConfig) -> Composition:
    """Return what a run is composed of."""
    return tuple(getattr(config, part) for part in PARTS)


def spell(parts: Composition) -> str:
    """Name a composition in a line: eviction, scope, and what else is not the default."""
    chosen = dict(zip(PARTS, parts, strict=True))
    said = [chosen["evict"], chosen["scope"]]
    for axis in AXES[1:]:
        if chosen[axis] != OPTIONS[axis].default:
            said.append(f"+ {chosen[axis]}" if axis == "prefetch" else f"{axis}={chosen[axis]}")
    return " ".join(said)
