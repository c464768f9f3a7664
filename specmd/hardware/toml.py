"""A hardware profile as TOML text, which `specmd.hardware.profile.read_profile` reads back."""

from __future__ import annotations

import json
from typing import Any

from specmd.hardware.profile import HardwareProfile


def profile_text(profile: HardwareProfile) -> str:
    """Spell a profile as TOML; `specmd.hardware.profile.read_profile` reads it back."""
    fields = profile.model_dump(mode="json", by_alias=True, exclude_none=True)
    lines = [
        f"{name} = {_spell(value)}" for name, value in fields.items() if not isinstance(value, dict)
    ]
    for name, value in fields.items():
        if isinstance(value, dict):
            lines += _table(name, value)
    return "\n".join(lines) + "\n"


def _table(name: str, fields: dict[str, Any]) -> list[str]:
    lines = ["", f"[{name}]"]
    lines += [f"{key} = {_spell(v)}" for key, v in fields.items() if not isinstance(v, dict)]
    for key, value in fields.items():
        if isinstance(value, dict):
            lines += _table(f"{name}.{key}", value)
    return lines if len(lines) > 2 else lines[:1] + lines[2:]


def _spell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if value != int(value) else f"{value:.1f}"
    return json.dumps(value, ensure_ascii=False)
