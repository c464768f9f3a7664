"""What must be the same for numbers to be comparable: the contract, the trace, where they are from.

A hit rate under one pool beside one under a quota a layer is no comparison of policies; neither is
one of two recordings, or of a clock beside a stopwatch. Such lines are refused unless it is just
that which is compared (`by`), or unless one was told to compare them anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from specmd.comparison.fields import said
from specmd.comparison.matching import Line, Matched
from specmd.errors import SpecmdError
from specmd.policy.registry import AXES, choose
from specmd.runs.run import Run

_OF_OPTION = {"clock": "sequential", "start": "warmup", "host_slots": "host_capacity"}
"""Terms of a contract by the option they say, where it is called differently."""
_OTHER_TRACE = {"trace", "model", "trace_digest"}
_BESIDE = {"source", "label", "device"}


def disagreements(matched: Matched) -> list[str]:
    """Say what the runs of a line disagree in that is not compared: one sentence for each."""
    found: dict[str, list[str]] = {}
    for line in matched.lines:
        for reason, example in _of(line, matched.by):
            found.setdefault(reason, []).append(example)
    return [
        f"{reason} ({len(examples)} of {len(matched.lines)} comparisons, e.g. {examples[0]})"
        for reason, examples in found.items()
    ]


def require_agreement(matched: Matched) -> None:
    """Raise SpecmdError where runs disagree in what is not compared."""
    found = disagreements(matched)
    if found:
        more = f", and {len(found) - 1} more reasons" if len(found) > 1 else ""
        raise SpecmdError(
            f"{found[0]}{more}: these runs answer different questions; --anyway "
            "compares them all the same"
        )


def _of(line: Line, by: Sequence[str]) -> Iterable[tuple[str, str]]:
    runs = [each.run for each in line.present]
    compared = {*by, *(AXES if "policy" in by else ())}
    sources = _different(run.source for run in runs)
    if sources and not _BESIDE & set(by):
        yield "simulated beside measured: --by source compares them", " and ".join(sources)
    digests = _different(run.trace.digest for run in runs if run.status == "ok")
    if digests and not _OTHER_TRACE & set(by):
        yield (
            f"the traces of {runs[0].trace.name} differ",
            " and ".join(digest[:12] or "none" for digest in digests),
        )
    contracts = [_contract(run) for run in runs]
    for term in dict.fromkeys(term for each in contracts for term in each):
        values = _different(
            each.get(term, "not said") for each in contracts if each.get(term, 0) is not None
        )
        option = _OF_OPTION.get(term, term)
        if values and not {term, option} & compared:
            yield f"the contracts differ in {term}", f"{said(values[0])} and {said(values[1])}"


def _different(values: Iterable[Any]) -> list[Any]:
    """Return the distinct values if there are several, else nothing."""
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found if len(found) > 1 else []


def _contract(run: Run) -> Mapping[str, Any]:
    """Return the terms of a run; None for what its policy decides, not who asked."""
    terms = dict(run.contract)
    try:
        evict = choose("evict", run.config.evict)
    except SpecmdError:  # a plug-in that is not loaded here
        return terms
    return terms | {"admission": None} if evict.frozen or evict.bypasses else terms
