"""Prompts to record from: a JSON Lines file, or the ones shipped with the tiny model.

One object a line: `{"text": "...", "domain": "..."}`; the domain is optional and only ends up in
the trace's notes. The built-in prompts are beginnings of documents that the tiny model has not been
trained on, several of each of its domains.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from specmd.errors import SpecmdError

BUILTIN = "builtin"


@dataclass(frozen=True)
class Prompt:
    """A text to start generating from, and the kind of text it is."""

    text: str
    domain: str = ""


def read_prompts(source: str | PathLike[str] = BUILTIN, domain: str | None = None) -> list[Prompt]:
    """Read prompts from a JSON Lines file, or the shipped ones for `builtin`.

    Args:
        source: path, or `builtin`.
        domain: keep only this domain.

    Raises:
        SpecmdError: the file is missing or a line is not a prompt; the message names both.

    """
    if str(source) == BUILTIN:
        from specmd.models.tiny import PROMPTS

        path = PROMPTS
    else:
        path = Path(source)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecmdError(f"{path}: prompts cannot be read: {error}") from None
    prompts = [_parse(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    known = sorted({prompt.domain for prompt in prompts})
    kept = [prompt for prompt in prompts if domain in (None, prompt.domain)]
    if not kept:
        raise SpecmdError(f"{path}: no prompt of domain '{domain}': known: {', '.join(known)}")
    return kept


def as_prompts(given: Iterable[Prompt | str | Mapping[str, Any]]) -> list[Prompt]:
    """Return prompts from texts, mappings with `text` and `domain`, or prompts.

    Raises:
        SpecmdError: there is none, or one has no text.

    """
    prompts: list[Prompt] = []
    for item in given:
        if isinstance(item, Mapping):
            prompt = Prompt(str(item.get("text", "")), str(item.get("domain", "")))
        else:
            prompt = Prompt(item) if isinstance(item, str) else item
        if not prompt.text:
            raise SpecmdError(f"prompt {len(prompts) + 1} is empty: give it a text")
        prompts.append(prompt)
    if not prompts:
        raise SpecmdError("no prompts: give at least one text")
    return prompts


def _parse(path: Path, number: int, line: str) -> Prompt:
    try:
        row = json.loads(line)
        text, domain = row["text"], row.get("domain", "")
    except (ValueError, KeyError, TypeError, AttributeError):
        text, domain = None, ""
    if not isinstance(text, str) or not text or not isinstance(domain, str):
        raise SpecmdError(f'{path}, line {number}: expected {{"text": "...", "domain": "..."}}')
    return Prompt(text, domain)
