"""The commands that run what was found."""

from __future__ import annotations

import shlex
from typing import Any

from specmd.advice.answer import Answer, Column
from specmd.advice.space import PARTS, runs_live
from specmd.hardware.shape import shape_for_model
from specmd.policy.registry import AXES, choose
from specmd.runs.declared import OPTIONS


def commands(answer: Answer, trace: str) -> list[str]:
    """Return the commands that run what was found: simulated, and live where it applies."""
    found: dict[str, list[str]] = {}
    for column in answer.columns:
        found.setdefault(_chosen(answer, column), []).append(column.asked)
    lines = []
    for chosen, profiles in found.items():
        several = " ".join(f"--profile {shlex.quote(each)}" for each in profiles)
        lines.append(f"specmd simulate {shlex.quote(trace)} {chosen} {several}")
    for column in answer.columns:
        line = _live(answer, column, trace)
        if line and line not in lines:
            lines.append(line)
    return lines


def _chosen(answer: Answer, column: Column) -> str:
    """Spell the options that are not their defaults."""
    config, asked = column.winner.config, answer.question.options
    said = [f"-e {shlex.quote(config.evict)} -c {shlex.quote(config.capacity)}"]
    for part in (each for each in PARTS if each != "evict"):
        if getattr(config, part) != OPTIONS[part].default:
            said.append(f"--{part} {shlex.quote(getattr(config, part))}")
    said += [_option(name, value) for name, value in asked.items()]
    return " ".join(said)


def _option(name: str, value: Any) -> str:
    dashed = name.replace("_", "-")
    return f"--{dashed}" if value is True else f"--{dashed} {shlex.quote(str(value))}"


def _live(answer: Answer, column: Column, trace: str) -> str:
    """Spell the live run; empty where this trace or composition cannot be run live."""
    config = column.winner.config
    known = config.shape is not None or shape_for_model(answer.model) is not None
    if not known or not all(runs_live(choose(axis, getattr(config, axis))) for axis in AXES):
        return ""
    return f"specmd run --trace {shlex.quote(trace)} {_chosen(answer, column)}"
