"""Words for shell completion; asked for by the shell only, and silent when something is wrong."""

from __future__ import annotations

from collections.abc import Callable


def policies(axis: str) -> Callable[[str], list[str]]:
    """Complete the names of policies on an axis, and `name:` to their parameters."""

    def complete(incomplete: str) -> list[str]:
        try:
            from specmd.policy.registry import entries

            found = {entry.name: entry for entry in entries() if entry.axis == axis}
        except Exception:  # completion must never print
            return []
        name, colon, rest = incomplete.partition(":")
        if not colon:
            return [each for each in found if each.startswith(incomplete)]
        if name not in found:
            return []
        done, comma, last = rest.rpartition(",")
        prefix = f"{name}:{done}{comma}"
        return [f"{prefix}{key}=" for key in found[name].parameters if key.startswith(last)]

    return complete


def axes(incomplete: str) -> list[str]:
    """Complete the names of axes."""
    try:
        from specmd.policy.registry import AXES

        return [axis for axis in AXES if axis.startswith(incomplete)]
    except Exception:  # completion must never print
        return []


def profiles(incomplete: str) -> list[str]:
    """Complete the names of the shipped hardware profiles."""
    try:
        from specmd.hardware.profile import list_profiles

        return [name for name in list_profiles() if name.startswith(incomplete)]
    except Exception:  # completion must never print
        return []


def shapes(incomplete: str) -> list[str]:
    """Complete the names of the shipped model shapes."""
    try:
        from specmd.hardware.shape import list_shapes

        return [name for name in list_shapes() if name.startswith(incomplete)]
    except Exception:  # completion must never print
        return []


def metrics(incomplete: str) -> list[str]:
    """Complete the names of metrics."""
    try:
        from specmd.runs.metrics import choices

        return [name for name in choices() if name.startswith(incomplete)]
    except Exception:  # completion must never print
        return []
