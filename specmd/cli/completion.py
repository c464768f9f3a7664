"""Words for shell completion; asked for by the shell only, and silent when something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from glob import escape, glob


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


def _words(find: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Complete words that are found when they are asked for."""

    def complete(incomplete: str) -> list[str]:
        try:
            return [word for word in find() if word.startswith(incomplete)]
        except Exception:  # completion must never print
            return []

    return complete


def among(choices: str) -> Callable[[str], list[str]]:
    """Complete words written as `a|b`."""
    return _words(lambda: choices.split("|"))


def _axes() -> Iterable[str]:
    from specmd.policy.registry import AXES

    return AXES


def _profiles() -> Iterable[str]:
    from specmd.hardware.profile import list_profiles

    return list_profiles()


def _shapes() -> Iterable[str]:
    from specmd.hardware.shape import list_shapes

    return list_shapes()


def _metrics() -> Iterable[str]:
    from specmd.runs.metrics import choices

    return choices()


axes = _words(_axes)
profiles = _words(_profiles)
shapes = _words(_shapes)
metrics = _words(_metrics)


def traces(incomplete: str) -> list[str]:
    """Complete trace files: those that begin so, and those in folders that do."""
    try:
        beginning = escape(incomplete)
        patterns = (f"{beginning}*.npz", f"{beginning}*/*.npz")
        return sorted(path for each in patterns for path in glob(each))  # noqa: PTH207 - as typed
    except Exception:  # completion must never print
        return []


def names_to_validate(incomplete: str) -> list[str]:
    """Complete what `specmd validate` takes: policies by name, traces by path."""
    try:
        from specmd.policy.registry import entries

        names = dict.fromkeys(entry.name for entry in entries())
        return [name for name in names if name.startswith(incomplete)] + traces(incomplete)
    except Exception:  # completion must never print
        return []
