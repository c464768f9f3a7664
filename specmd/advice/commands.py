"""The commands that run what was found."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from specmd.advice.answer import Answer, Column
from specmd.advice.space import PARTS, runs_live
from specmd.hardware.shape import shape_for_model
from specmd.policy.registry import AXES, choose
from specmd.runs.declared import OPTIONS
from specmd.runs.options import RunConfig

_NOT_LIVE = ("context", "engine")
"""Options of a question that say what a device leaves for slots: a live run is given the slots."""


def commands(answer: Answer, trace: str) -> list[str]:
    """Return the commands that run what was found: simulated, and live where it applies."""
    found: dict[str, list[str]] = {}
    for column in answer.columns:
        config, asked = column.winner.config, answer.question.options
        found.setdefault(_chosen(answer, config, config.capacity, asked), []).append(column.asked)
    lines = []
    for chosen, profiles in found.items():
        several = " ".join(f"--profile {shlex.quote(each)}" for each in profiles)
        lines.append(f"specmd simulate {shlex.quote(trace)} {chosen} {several}")
    for column in answer.columns:
        line = _live(answer, column, trace)
        if line and line not in lines:
            lines.append(line)
    return lines


def _chosen(answer: Answer, config: RunConfig, capacity: str, asked: Mapping[str, Any]) -> str:
    """Spell the options that are not their defaults."""
    said = [f"-e {shlex.quote(config.evict)} -c {shlex.quote(capacity)}"]
    for part in (each for each in PARTS if each != "evict"):
        if getattr(config, part) != OPTIONS[part].default:
            said.append(f"--{part} {shlex.quote(getattr(config, part))}")
    if config.seed != OPTIONS["seed"].default:
        said.append(_option("seed", config.seed))
    said += [_option(name, value) for name, value in asked.items()]
    said += [_option("training", answer.training)] if answer.training else []
    said += [_option("plugin", each) for each in answer.plugins]
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
    asked = {n: v for n, v in answer.question.options.items() if n not in _NOT_LIVE}
    chosen = _chosen(answer, config, str(config.capacity_slots), asked)
    return f"specmd run --trace {shlex.quote(trace)} {chosen}"
