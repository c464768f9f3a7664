"""What stands below a table: marks, the contract, how runs were measured, warnings once each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from specmd.report.names import (
    caption,
    changes_answers,
    is_clairvoyant,
    outlives_eviction,
    policy_name,
)
from specmd.runs.options import STAGING_SLOTS
from specmd.runs.run import Run

_MARKS: tuple[tuple[str, str, str, Callable[[Run], bool]], ...] = (
    ("*", "baseline", "the usual baseline", lambda run: policy_name(run) == "lru"),
    ("†", "knows the future", "knows the future: a bound, not a choice", is_clairvoyant),
    (
        "°",
        "remembers evicted experts",
        "remembers experts that left the cache, beyond what its slots hold",
        lambda run: outlives_eviction(run) and not is_clairvoyant(run),
    ),
    (
        "~",
        "lossy",
        "lossy: executes other experts than the model chose, or copies of few bits; compare it by "
        "the true hit rate and the kept mass",
        changes_answers,
    ),
)
_STANDING = (
    (re.compile(r"profile (\S+) is not calibrated .*"), "not calibrated"),
    (re.compile(r"profile (\S+) is anchored to .*"), "anchored to other runs"),
    (re.compile(r"software assumed: .* \(--engine (\w+)\)"), "engine assumed"),
)
"""Warnings that come with every run of a profile; the group says of what."""
_LONG = 100


def marks(run: Run) -> str:
    """Return the marks behind the name of a run, as the notes explain them."""
    found = [mark for mark, *_, holds in _MARKS if holds(run)]
    return f" {''.join(found)}" if found else ""


def notes(runs: Sequence[Run], *, verbose: bool = False) -> list[str]:
    """Explain the marks, pass every warning on once, and name the contract.

    What is the same below every table takes one line at either end, or, if `verbose`, as many as
    it needs.
    """
    ok = [run for run in runs if run.status == "ok"]
    found = _legend(ok, verbose)
    estimates = {
        f"{run.ttft_estimate_s * 1e3:,.0f} ms ({_unbracketed(caption(run))})"
        for run in ok
        if run.ttft_estimate_s is not None
    }
    if estimates:
        spelled = ", ".join(sorted(estimates))
        found.append(f"TTFT, estimated from prompt lengths, whatever the policy: {spelled}")
    found += _circumstances(ok, verbose)
    found += _warnings(runs, verbose)
    if ok:
        standing = [] if verbose else _standing(runs)
        found.append("; ".join([_contract(ok, verbose), *standing]) + " (-v)" * (not verbose))
    return found


def _unbracketed(said: str) -> str:
    return said.removesuffix(")").replace(" (", " on ")


def _legend(runs: Sequence[Run], verbose: bool) -> list[str]:
    bounds = [run.bounds for run in runs if run.bounds is not None]
    found = [
        f"{mark} {text if verbose else short}"
        for mark, short, text, holds in _MARKS
        if any(holds(run) for run in runs)
    ]
    if bounds and verbose:
        found.append("‡ bound, without prefetch; vs belady, vs bypass: misses above these")
    elif bounds:
        found.append("‡ bound, without prefetch")
    if any(each.roofline_s for each in bounds) and verbose:
        found.append("x roofline: total time over the least that any lossless policy can take")
    elif any(each.roofline_s for each in bounds):
        found.append("x roofline: times the least possible")
    return found if verbose or not found else [" · ".join(found)]


def _standing(runs: Sequence[Run]) -> list[str]:
    """Say shortly what `_STANDING` warnings say: `t4, l4 not calibrated`."""
    found: dict[str, dict[str, None]] = {}
    for text in dict.fromkeys(text for run in runs for text in run.warnings):
        for pattern, short in _STANDING:
            if match := pattern.fullmatch(text):
                found.setdefault(short, {})[match[1]] = None
    return [f"{', '.join(names)} {short}" for short, names in found.items()]


def _circumstances(runs: Sequence[Run], verbose: bool) -> list[str]:
    """Say of measured runs how evenly they ran and what they took; ranges where they differ."""
    found = [run.measurement for run in runs if run.measurement is not None]
    if not found:
        return []

    spreads = [each.spread["tpot_s"] for each in found if "tpot_s" in each.spread]
    spreads = [each for each in spreads if each.mean > 0]
    counts = _span((each.repetitions for each in found), "{:.0f}")
    warm = _span((each.warmup_runs for each in found), "{:.0f}")
    text = f"measured: {counts} repetitions after {warm} of warm-up, each from an empty cache"
    if spreads:
        text += f"; TPOT ± {_span((s.stdev / s.mean * 100 for s in spreads), '{:.1f}')} %"
    if not verbose:
        return [text]
    threads = _span((each.compute_threads for each in found), "{:.0f}")
    rates = [each.link_bytes_per_s for each in found if each.link_bytes_per_s]
    parts = [f"compute threads {threads}"]
    if rates:
        parts.append(f"link {_span((rate / 1e9 for rate in rates), '{:.3g}')} GB/s while busy")
    parts.append(f"{_span((each.pinned_share * 100 for each in found), '{:.0f}')} % pinned")
    parts.append(
        f"on the device: slots {_span((each.slot_bytes / 1e6 for each in found), '{:,.1f}')} MB, "
        f"all but experts {_span((each.dense_bytes / 1e6 for each in found), '{:,.1f}')} MB"
    )
    peaks = [each.peak_device_bytes for each in found if each.peak_device_bytes]
    if peaks:
        parts.append(f"peak {_span((peak / 1e6 for peak in peaks), '{:,.1f}')} MB")
    return [text, ", ".join(parts)]


def _warnings(runs: Sequence[Run], verbose: bool) -> list[str]:
    """Every warning once, those of all runs last; of those alike but for names the first.

    Where not `verbose`, standing ones are left out, and long ones end where their reason begins.
    """
    alike: dict[str, list[str]] = {}
    for run in runs:
        own = "|".join(map(re.escape, filter(None, (run.config.evict, run.config.profile))))
        for text in run.warnings:
            if verbose or not any(pattern.fullmatch(text) for pattern, _ in _STANDING):
                alike.setdefault(re.sub(rf"\b({own})\b|[0-9][0-9.,]*", "#", text), []).append(text)
    notes = []
    for texts in sorted(alike.values(), key=len):
        more = len(set(texts)) - 1
        beside = [f"and {more} more like it"] if more else []
        if len(texts) < len(runs):
            beside.append(f"{len(texts)} of {len(runs)} runs")
        text = texts[0] if verbose or len(texts[0]) <= _LONG else texts[0].partition(": ")[0]
        notes.append(f"warning: {text}" + (f" ({', '.join(beside)})" if beside else ""))
    return notes


def _contract(runs: Sequence[Run], verbose: bool) -> str:
    """Spell the choices of the evaluation contract, `a|b` where the runs differ."""
    spelled: list[tuple[str, Callable[[Run], Any]]] = [
        ("", lambda run: "sequential" if run.config.sequential else "event-atomic"),
        ("scope", lambda run: run.config.scope),
        ("", lambda run: run.config.admission),
        ("", lambda run: "cold" if run.config.warmup == 0 else f"warm-up {run.config.warmup}"),
        ("reset", lambda run: run.config.reset),
        ("batch", _batch),
        ("prefill chunk", lambda run: run.config.prefill_chunk or "as recorded"),
        ("seed", lambda run: run.config.seed),
        ("staging", lambda run: run.contract.get("staging_slots", STAGING_SLOTS)),
        ("trace", lambda run: run.trace.digest[:12]),
    ]
    parts = []
    for label, pick in spelled:
        values = "|".join(dict.fromkeys(str(pick(run)) for run in runs))
        usual = label == "staging" and values == str(STAGING_SLOTS) and not verbose
        if not label or not (usual or values in ("none", "as recorded")):
            parts.append(f"{label} {values}".strip())
    return f"contract: {', '.join(parts)}"


def _batch(run: Run) -> str:
    mixed = " mixed" if run.config.mixed else ""
    return f"{run.config.batch}{mixed}" if run.config.batch else "as recorded"


def _span(values: Iterable[float], form: str) -> str:
    """Spell the least and the largest value, once if they read alike."""
    texts = [form.format(value) for value in sorted(values)]
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"
