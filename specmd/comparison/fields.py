"""What may differ between two runs: their inputs, and where they were made, each by a name.

`inputs` are what decides the numbers of a run as its file tells them: policies, options, trace,
hardware and, of a measured run, how it was measured. Runs are matched by them. `circumstances` are
where its code and its machine stand; they match nothing and may explain a difference. All of them
can be asked for by name (`--by`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from specmd.errors import unknown
from specmd.report.names import policy_name
from specmd.runs.identity import SPELLED
from specmd.runs.run import Run

Value = str | int | float | bool | None

_OF_THE_SETTING = (
    *("link", "throttle_bytes_per_s", "throttle_latency_s", "deterministic", "prefill"),
    *("chunk_bytes", "compute_threads"),
)
_UNSAID = ("argv", "seed", "trace_digest", "packages", "run_schema", "trace_schema", "made_in_s")
_SPELLED_ALIKE = {"capacity": "capacity_slots", "host_capacity": "host_slots"}


def device(run: Run) -> str | None:
    """Name what a run was measured on, or what it was simulated for."""
    return run.config.profile if run.measurement is None else run.measurement.device


def commit(run: Run) -> str:
    """Name the code that made a run: its commit, or its version and a digest of its source."""
    made = run.provenance
    if made.get("commit"):
        return str(made["commit"])[:9] + (" (edited)" if made.get("dirty") else "")
    return f"{made.get('specmd', '?')} ({str(made.get('source_digest', '?'))[:8]})"


def inputs(run: Run) -> dict[str, Value]:
    """Return what decides the numbers of a run, by name."""
    found: dict[str, Value] = {"source": run.source, "trace": run.trace.name, "device": device(run)}
    found |= run.config.model_dump(exclude=SPELLED)
    if run.measurement is not None:
        found |= {name: getattr(run.measurement, name) for name in _OF_THE_SETTING}
        found |= dict(_flat("workload", run.measurement.workload))
    return found


def circumstances(run: Run) -> dict[str, Value]:
    """Return what is known of the making of a run, by name; it is no input."""
    made = run.provenance
    found: dict[str, Value] = {"commit": commit(run)}
    said = {key: value for key, value in made.items() if key not in (*_UNSAID, "commit", "dirty")}
    found |= dict(_flat("", said))
    found |= dict(_flat("packages", made.get("packages", {})))
    if run.measurement is not None:
        found |= dict(_flat("device_facts", run.measurement.device_facts))
    return found


_NAMED: dict[str, Callable[[Run], Value]] = {
    "policy": policy_name,
    "model": lambda run: run.trace.model,
    "trace_digest": lambda run: run.trace.digest,
    "label": lambda run: run.label,
    "status": lambda run: run.status,
    "seed": lambda run: run.config.seed,
}


def reader(name: str, runs: Iterable[Run]) -> Callable[[Run], Value]:
    """Return what reads a field of a run; raises SpecmdError if none of the runs has it."""
    wanted = _SPELLED_ALIKE.get(name, name)
    if wanted in _NAMED:
        return _NAMED[wanted]
    known = set(_NAMED)
    for run in runs:
        known |= inputs(run).keys() | circumstances(run).keys()
        if wanted in known:
            return lambda run: (circumstances(run) | inputs(run)).get(wanted)
    raise unknown("field", name, known)


def said(value: Value) -> str:
    """Spell a value of a field."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def order(value: Value) -> tuple[int, float, str]:
    """Order values of any type: numbers by size, before words."""
    if isinstance(value, int | float):
        return 0, value, ""
    return 1, 0.0, str(value)


def _flat(prefix: str, found: Any) -> Iterator[tuple[str, Value]]:
    """Yield what a mapping says, nested ones under dotted names; lists are left out."""
    if not isinstance(found, Mapping):
        return
    for key, value in found.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from _flat(name, value)
        elif isinstance(value, str | int | float | bool | None):
            yield name, value
