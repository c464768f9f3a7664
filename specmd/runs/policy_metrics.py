"""What policies say of themselves at the end of a run: metrics of their own, books that add up.

A policy may have `metrics(self)`, which returns numbers by name, and `finished(self, core)`, which
raises, or returns in words, what is wrong with its own books; `core` is the residency core for an
eviction policy, None for any other. Both are asked outside compiled code, of the state as it is
after the last event, its arrays as numpy arrays whatever engine ran.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from specmd.core.interpreted import as_arrays
from specmd.errors import SpecmdError, unknown
from specmd.policy.faults import told
from specmd.runs.metrics import METRICS, Metric

Own = dict[str, int | float]
"""Metrics of one policy by name."""
Published = dict[str, Own]
"""Of all policies of a run, by axis and name: `evict arc`."""


def publish(axis: str, name: str, state: Any, core: Any = None) -> Published:
    """Ask a policy how its run ended; {} where it publishes nothing.

    Raises:
        SpecmdError: its books do not add up, or what it publishes is no metric.

    """
    who, state = f"{axis} policy '{name}'", as_arrays(state)
    _finish(who, state, core)
    if not callable(getattr(state, "metrics", None)):
        return {}
    try:
        said = state.metrics()
    except Exception as error:
        raise SpecmdError(f"{who}: its metrics: {told(error)}") from error
    if not isinstance(said, Mapping):
        raise SpecmdError(f"{who}: its metrics are {said!r}: return numbers by name")
    return {f"{axis} {name}": {key: _number(who, key, value) for key, value in said.items()}}


def _finish(who: str, state: Any, core: Any) -> None:
    if not callable(getattr(state, "finished", None)):
        return
    try:
        wrong = state.finished(None if core is None else as_arrays(core))
    except Exception as error:
        raise SpecmdError(f"{who}: its books do not add up: {told(error)}") from error
    if wrong:
        raise SpecmdError(f"{who}: its books do not add up: {wrong}")


def _number(who: str, key: Any, value: Any) -> int | float:
    if not isinstance(key, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", key):
        raise SpecmdError(f"{who}: metric {key!r}: name it with a-z, 0-9 and _, a letter first")
    if key in METRICS:
        raise SpecmdError(f"{who}: metric '{key}' is SpecMD's own: choose another name")
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        raise SpecmdError(f"{who}: metric '{key}' is {value!r}, not a number")
    number = value.item() if isinstance(value, np.number) else value
    if isinstance(number, complex) or not math.isfinite(number):
        raise SpecmdError(f"{who}: metric '{key}' is {number}, not a finite number")
    return number


def flat(published: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return them under the names by which they are asked for: `evict.arc.target`."""
    return {
        f"{who.replace(' ', '.')}.{name}": value
        for who, own in published.items()
        for name, value in own.items()
    }


def own_metric(name: str) -> Metric:
    """Make the metric that a policy publishes; nobody knows which way it is better."""
    who = name.rpartition(".")[0].replace(".", " policy ", 1)
    return Metric(name, name, "number", "neither", "own", f"published by {who}")


def metrics_of(runs: Iterable[Any]) -> dict[str, Metric]:
    """Return every metric that runs can be asked for: SpecMD's, then those of their policies."""
    own = dict.fromkeys(name for run in runs for name in flat(run.policy_metrics))
    return {**METRICS, **{name: own_metric(name) for name in own}}


def look_up(name: str, runs: Iterable[Any]) -> Metric:
    """Look a metric of some runs up; raises SpecmdError with the closest names."""
    known = metrics_of(runs)
    if name not in known:
        raise unknown("metric", name, known)
    return known[name]
