"""What the lines of a comparison are called: a policy, and the inputs in which they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from specmd.comparison.fields import Value, order, said
from specmd.comparison.matching import Line, Matched
from specmd.policy.registry import AXES
from specmd.report.names import policy_name, varied_axes

_FIRST = ("trace", "source", "profile", "device", "capacity_slots")
TITLES = {"capacity_slots": "slots", "throttle_bytes_per_s": "link B/s"}


@dataclass(frozen=True)
class Labels:
    """Names of the fields beside the policy, and every line in order with its words."""

    fields: tuple[str, ...]
    lines: tuple[tuple[Line, str], ...]

    @property
    def named(self) -> bool:
        """Whether a column names policies: they are not what the columns differ in."""
        return any(policy for _, policy in self.lines)

    @property
    def titles(self) -> list[str]:
        """Titles of the columns that `words` fills."""
        return [
            *(["policy"] if self.named else []),
            *(TITLES.get(name, name) for name in self.fields),
        ]

    def words(self, line: Line, policy: str) -> list[str]:
        """Return what a line is called, a word a column."""
        return [
            *([policy] if self.named else []),
            *(_written(name, line.key.get(name)) for name in self.fields),
        ]


def label(matched: Matched) -> Labels:
    """Name the lines of a comparison, by as few fields as tell them apart."""
    axes = varied_axes(matched.runs)
    axes_apart = [name for name in matched.varying if name in (*AXES, "seed")]
    apart = matched.by and {"policy", *AXES, "seed"} & {*matched.by, *matched.compared}
    named = [
        (line, _beside(line, axes_apart) if apart else _policies(line, axes))
        for line in matched.lines
    ]
    fields: list[str] = []
    rest = [name for name in matched.varying if name not in (*AXES, "seed")]
    classes = [(policy,) for _, policy in named]
    for name in sorted(
        rest, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST)
    ):
        finer = [(*c, str(line.key.get(name))) for c, (line, _) in zip(classes, named, strict=True)]
        if len(set(finer)) > len(set(classes)):
            fields.append(name)
            classes = finer  # type: ignore[assignment]
    named.sort(key=lambda each: ([order(each[0].key.get(name)) for name in fields], each[1]))
    return Labels(tuple(fields), tuple(named))


def _beside(line: Line, axes: Sequence[str]) -> str:
    """Spell the axes of a line that are not its columns."""
    return " ".join(f"{name}={said(line.key.get(name))}" for name in axes)


def _policies(line: Line, axes: Sequence[str]) -> str:
    return " → ".join(dict.fromkeys(policy_name(each.run, axes) for each in line.present))


def _written(name: str, value: Value) -> str:
    return f"{value:,}" if name == "capacity_slots" and isinstance(value, int) else said(value)
