"""Watched runs of routing and miss policies: what they choose, answer, and write to."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from specmd.conformance.cases import small_trace, training_trace
from specmd.conformance.sources import place_of
from specmd.conformance.watch import COUNTERS, ROWS_ADD_UP, UNTOUCHED, Violation
from specmd.core import guards, hooks
from specmd.core.specialise import Function, specialise
from specmd.policy.registry import Choice
from specmd.runs.counters import AccountingError, check
from specmd.runs.options import RunConfig
from specmd.simulation.costs import CostCoefficients
from specmd.simulation.walk import Walk


def watch_execution(
    choice: Choice, slots: int, costs: CostCoefficients | None, **options: Any
) -> str:
    """Replay the small trace; return the digest. Raises Violation where a rule is broken."""
    config = RunConfig(evict="lru", capacity=str(slots), capacity_slots=slots, **options)
    training = training_trace(small_trace()) if "training" in choice.needs else None
    trace = small_trace()
    also = _watched(choice)
    outcome = Walk(trace, config, training, costs, "cache", True, None, also=also).run()
    try:
        check(outcome.counters)
    except AccountingError as error:
        raise Violation(COUNTERS, str(error)) from None
    if outcome.masses is not None:
        whole, *parts = outcome.masses.sum(axis=(0, 1)).tolist()
        if abs(whole - sum(parts)) > 1e-9 * whole:
            raise Violation(ROWS_ADD_UP, f"{parts} of {whole}")
        if sum(parts[1:]) > 0 and not choice.entry.lossy:
            raise Violation(ROWS_ADD_UP, "it says it is lossless, and changes what is executed")
    return outcome.decision_digest


def _watched(choice: Choice) -> dict[Function, Function]:
    """Bind the hooks of a policy so that what they answer and write to is looked at."""
    found: dict[Function, Function] = {}
    looks: dict[str, tuple[Function, Function, Function]] = {
        "route": (hooks.route, hooks.own_route, guards.guarded_route),
        "answer": (hooks.answer, hooks.own_answer, guards.guarded_answer),
    }
    for name, (asked, own, guarded) in looks.items():
        hook = getattr(choice.cls, name, None)
        if isinstance(hook, FunctionType):
            found |= {own: _noticing(name, hook), asked: guarded}
    return found


def _noticing(name: str, hook: Callable[..., Any]) -> Function:
    """Return a hook that notices what it writes to the core and to the event."""
    place, ask = place_of(hook), specialise(hook, {}, compiled=False)

    def noticing(policy: Any, *told: Any) -> Any:
        core = told[-1]
        event = told[0] if name == "route" else told[1]
        before = [list(part) for part in core if isinstance(part, list)]
        own = slice(event.start, event.stop)
        shown = list(event.keys[own]), list(event.tokens[own])
        said = ask(policy, *told)
        if before != [part for part in core if isinstance(part, list)]:
            raise Violation(UNTOUCHED, f"{name} wrote to the core's arrays{place}")
        if shown != (list(event.keys[own]), list(event.tokens[own])):
            raise Violation(UNTOUCHED, f"{name} wrote to the event{place}")
        if name == "answer" and not isinstance(said, int):
            raise Violation(UNTOUCHED, f"answer returned {said!r}, not a number{place}")
        return said

    return noticing
