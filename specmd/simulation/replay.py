"""Replay a trace through the residency core: configuration and trace in, counts and times out.

Where no decision depends on time (no prefetch, no cache in host memory), a run is replayed without
a clock, and timed afterwards (`specmd.simulation.clock`): its decisions are kept for a while, for
they are those of every profile.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from specmd.core.state import HOST_EXPERTS
from specmd.policy.registry import AXES, choose
from specmd.runs.counters import MISSES
from specmd.runs.declared import COMPOSED
from specmd.runs.metrics import PARTS
from specmd.runs.options import RunConfig
from specmd.simulation.clock import Clock, require_sizes
from specmd.simulation.costs import transfer_s
from specmd.simulation.events import EventStream
from specmd.simulation.walk import Outcome, Residency, Walk, is_timeless
from specmd.trace.contexts import decode_steps

if TYPE_CHECKING:
    from specmd.simulation.costs import CostCoefficients
    from specmd.trace import Trace

__all__ = ["Outcome", "Residency", "replay"]

KEPT = 8
"""Decisions of a trace that are kept, for more profiles to come; each some MB."""

_kept: WeakKeyDictionary[Trace, dict[tuple[Any, ...], Outcome]] = WeakKeyDictionary()


def replay(
    trace: Trace,
    config: RunConfig,
    *,
    training: Trace | None = None,
    costs: CostCoefficients | None = None,
    residency: Residency = "cache",
    interpreted: bool = False,
    compiled: bool = False,
) -> Outcome:
    """Run one configuration over a trace.

    `costs` switches the clock on. `residency` "all" starts with every expert resident, "none"
    admits nothing: the two ends every result is compared with. "seen" and "any" make a bound of
    Belady: it is given, after the warm-up, the keys demanded so far that are used again soonest; or
    from the start and after each reset those of all keys. `training` is the trace that policies
    fitted beforehand are fitted on. `config.capacity_slots`, not `config.capacity`, is what counts.
    `compiled` compiles what can be even where so little is served sooner without.
    Raises SpecmdError when a policy's needs are not met.
    """
    if config.tokens is not None and config.tokens < trace.num_tokens:
        from specmd.trace import slice_tokens

        trace = slice_tokens(trace, 0, config.tokens)
    size = None if compiled else trace.expert_ids.size

    def run(costs: CostCoefficients | None) -> Outcome:
        return Walk(trace, config, training, costs, residency, interpreted, size).run()

    if not is_timeless(config) or "rates" in choose("miss", config.miss).needs:
        return _with_median(trace, config, run(costs))
    key = _decisions_key(trace, config, training, residency, interpreted, compiled)
    known = _kept.setdefault(trace, {})
    decided = known.pop(key, None) or run(None)
    known[key] = decided
    while len(known) > KEPT:
        known.pop(next(iter(known)))
    return (
        decided if costs is None else _timed(trace, config, decided, costs, residency, interpreted)
    )


def _decisions_key(
    trace: Trace, config: RunConfig, training: Trace | None, *how: Any
) -> tuple[Any, ...]:
    """Name what decides: all but the clock."""
    free = {"profile", "engine", "shape", "context", "capacity", "tokens", *COMPOSED}
    chosen = [choose(axis, getattr(config, axis)) for axis in AXES]
    policies = tuple((choice.content, choice.cls) for choice in chosen)
    fitted = training.digest if training is not None else None
    return (config.model_dump_json(exclude=free), policies, fitted, trace.header.layer_bytes, *how)


def _timed(
    trace: Trace,
    config: RunConfig,
    decided: Outcome,
    costs: CostCoefficients,
    residency: Residency,
    interpreted: bool,
) -> Outcome:
    """Put decisions that are made on a profile's clock."""
    require_sizes(trace.header)
    assert decided.notes is not None
    if residency == "all":
        costs = costs._replace(decide_s=0.0)  # nothing is asked where all is there
    blocks = choose("miss", config.miss).blocks
    clock = Clock(EventStream(trace), decided.notes, costs, blocks=blocks, interpreted=interpreted)
    seconds = clock.step_seconds()
    sizes = np.asarray(trace.header.layer_bytes, np.float64)
    moved = decided.counters[..., MISSES].sum(axis=(0, 2)) - decided.counters[
        ..., HOST_EXPERTS
    ].sum(axis=0)
    link_s = float(
        sum(n * transfer_s(costs, size) for n, size in zip(moved.tolist(), sizes, strict=True))
    )
    step = median_decode(trace, seconds, config.warmup)
    return replace(
        decided,
        step_seconds=seconds[config.warmup :],
        link_busy_s=link_s,
        median=None if step is None else (step, clock.layer_seconds(step)),
    )


def _with_median(trace: Trace, config: RunConfig, outcome: Outcome) -> Outcome:
    """Choose, of the last steps of a run, a decode step of median duration."""
    if outcome.step_seconds is None or outcome.trail is None:
        return outcome
    first = trace.num_steps - len(outcome.trail)
    seconds = np.concatenate([np.zeros((config.warmup, len(PARTS))), outcome.step_seconds])
    step = median_decode(trace, seconds, first)
    found = None if step is None else (step, outcome.trail[step - first])
    return replace(outcome, trail=None, median=found)


def median_decode(trace: Trace, seconds: npt.NDArray[np.float64], first: int) -> int | None:
    """Return the counted decode step of median duration, None if there is none."""
    decodes = decode_steps(trace).copy()
    decodes[:first] = False
    found = np.flatnonzero(decodes)
    if not len(found):
        return None
    middle = (len(found) - 1) // 2
    return int(found[np.argpartition(seconds[found].sum(axis=1), middle)[middle]])
