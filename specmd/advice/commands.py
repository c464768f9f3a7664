"""The commands that run what was found."""

from __future__ import annotations

import shlex
from typing import Any

from specmd.advice.answer import Answer, Column
from specmd.advice.space import PARTS
from specmd.hardware.shape import shape_for_model
from specmd.policy.needs import Offer, unmet
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
    if shape_for_model(answer.model) is None and config.shape is None:
        return ""
    for name, option in OPTIONS.items():
        away = name not in ("profile", "shape", "tokens", "prefill_chunk", "batch", "mixed")
        if not option.live and away and getattr(config, name) not in (option.default, None):
            return ""
    live = Offer(future=False, training=True, lookahead=0)
    if any(unmet(choose(axis, getattr(config, axis)), live) for axis in AXES):
        return ""
    return f"specmd run --trace {shlex.quote(trace)} {_chosen(answer, column)}"
