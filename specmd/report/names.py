"""What a run is called in tables and figures, and how its numbers are to be captioned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from specmd.policy.registry import AXES
from specmd.runs.options import RunConfig
from specmd.runs.run import Run

CIRCUMSTANCES = (
    *("scope", "reset", "tokens", "prefill_chunk", "batch", "mixed", "warmup"),
    *("sequential", "shape"),
)
"""Options in which runs may differ beside their policies, as tables and figures name them."""

_LESSER = tuple(axis for axis in AXES if axis not in ("evict", "prefetch", "schedule"))


def policy_name(run: Run, varied: Iterable[str] = ()) -> str:
    """Spell what was run: the eviction policy, and every other axis that is not the default."""
    config = run.config
    parts = [config.evict]
    if config.prefetch != "none":
        parts.append(f"+ {config.prefetch}")
        if config.schedule != RunConfig.model_fields["schedule"].default or "schedule" in varied:
            parts.append(config.schedule)
    for axis in _LESSER:
        value = getattr(config, axis)
        if value != RunConfig.model_fields[axis].default or axis in varied:
            parts.append(f"{axis}={value}")
    if "seed" in varied:
        parts.append(f"seed={config.seed}")
    return " ".join(parts)


def varied_axes(runs: Sequence[Run]) -> list[str]:
    """Name the axes on which the runs differ, but for eviction and prefetch."""
    prefetching = {run.config.schedule for run in runs if run.config.prefetch != "none"}
    found = ["schedule"] if len(prefetching) > 1 else []
    for name in (*_LESSER, "seed"):
        if len({getattr(run.config, name) for run in runs}) > 1:
            found.append(name)
    return found


def caption(run: Run) -> str:
    """Say where the numbers come from: simulated on a profile, or measured on a device."""
    if run.label:
        return run.label
    if run.config.profile is None:
        return f"{run.source}, no clock"
    return f"{run.source} on {run.config.profile}"


def captions(runs: Iterable[Run]) -> str:
    """Say it of several runs: `simulated (t4, rtx4090)`."""
    kinds: dict[str, list[str]] = {}
    for said in dict.fromkeys(caption(run) for run in runs):
        kind, bracket, where = said.partition(" (")
        kinds.setdefault(kind, []).extend([where.removesuffix(")")] if bracket else [])
    return ", ".join(
        f"{kind} ({', '.join(names)})" if names else kind for kind, names in kinds.items()
    )


def is_clairvoyant(run: Run) -> bool:
    """Say whether a run knew the future: its numbers are a bound, not a recommendation."""
    return bool(
        {run.config.evict.split(":")[0], run.config.prefetch.split(":")[0]} & _clairvoyant()
    )


def changes_answers(run: Run) -> bool:
    """Say whether a policy of a run is lossy; of one that is not loaded here it is not known."""
    from specmd.errors import SpecmdError
    from specmd.policy.registry import is_lossy

    try:
        return is_lossy(run.config)
    except SpecmdError:
        return False


def outlives_eviction(run: Run) -> bool:
    """Say whether the eviction policy remembers keys that left: it is more than its slots."""
    from specmd.errors import SpecmdError
    from specmd.policy.registry import choose

    try:
        return choose("evict", run.config.evict).remembers
    except SpecmdError:  # a plug-in that is not loaded here
        return False


@cache
def _clairvoyant() -> set[str]:
    from specmd.policy.registry import entries

    return {entry.name for entry in entries() if "future" in entry.needs}
