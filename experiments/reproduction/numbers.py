"""What came out, as a small CSV: one row a run, what was asked, what was counted, and by what.

`others.csv` is of the recordings by others, `own.csv` of the project's own; both are committed, so
that texts can be held against them anywhere. The first line says what made them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from specmd.errors import SpecmdError
from specmd.runs.declared import OPTIONS

HALVES = ("others", "own")
ALWAYS = ("trace", "evict", "capacity")
PHASES = ("prefill", "decode")


def rows_of(
    runs: Sequence[Mapping[str, Any]], metrics: Sequence[str], options: Collection[str] = ALWAYS
) -> pd.DataFrame:
    """Return (runs, columns): the options named or varied, the metrics asked for, the digests.

    A metric `decode:hit_rate` is that of the decode steps. Raises SpecmdError for a run that failed
    and for a metric that it does not have.
    """
    bad = [run for run in runs if run["status"] != "ok"]
    if bad:
        raise SpecmdError(f"{len(bad)} runs did not succeed: {bad[0]['reason']}")
    varied = [
        name
        for name in OPTIONS
        if name in options or len({str(run["config"][name]) for run in runs}) > 1
    ]
    found = []
    for run in runs:
        row: dict[str, Any] = {"trace": run["trace"]["name"]}
        row |= {name: run["config"][name] for name in varied}
        if row.get("profile"):
            row["profile"] = Path(row["profile"]).stem
        row |= {name: _figure(run, name) for name in metrics}
        row["digest"] = run["decision_digest"][:12]
        found.append(row)
    return pd.DataFrame(found)


def _figure(run: Mapping[str, Any], name: str) -> Any:
    phase, _, metric = name.rpartition(":")
    if metric == "roofline_s":
        value = run["bounds"]["roofline_s"]
    elif metric in ("belady", "belady_bypass"):
        value = run["bounds"][metric]["hit_rate"]
    elif metric == "all_resident_tpot_s":
        value = run["bounds"]["all_resident"]["tpot_s"]
    elif metric == "all_resident_ttft_s":
        value = run["bounds"]["all_resident"]["ttft_s"]
    else:
        value = (run["per_phase"].get(phase, {}) if phase else run["metrics"]).get(metric)
    return float(f"{value:.6g}") if isinstance(value, float) else value


def made_by(runs: Sequence[Mapping[str, Any]]) -> str:
    """Say in one line what made some runs: version, commit, packages, traces."""
    facts = runs[0]["provenance"]
    packages = ", ".join(f"{name} {facts['packages'][name]}" for name in ("numpy", "numba"))
    traces = {run["trace"]["name"]: run["trace"]["digest"][:12] for run in runs}
    commit = (facts["commit"] or "unknown")[:12] + (" and changes" if facts["dirty"] else "")
    return json.dumps(
        {
            "simulated by": f"specmd {facts['specmd']}, commit {commit}",
            "with": f"python {facts['python']}, {packages}",
            "on": f"{datetime.now(UTC):%Y-%m-%d}",
            "traces": traces,
            "tokens": sorted({run["trace"]["counted_tokens"] for run in runs}),
        }
    )


def write(path: Path, rows: pd.DataFrame, made: str) -> None:
    """Write rows and, in a first line, what made them."""
    path.write_text(f"# {made}\n{rows.to_csv(index=False)}", encoding="utf-8")


def read(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read rows, and what made them; raises SpecmdError where there is no such file."""
    try:
        first, _, rest = path.read_text(encoding="utf-8").partition("\n")
    except OSError as error:
        raise SpecmdError(f"{path}: cannot be read: {error.strerror}") from None
    from io import StringIO

    rows = pd.read_csv(StringIO(rest), keep_default_na=False, na_values=[""])
    return rows, json.loads(first.removeprefix("# "))


def changes(before: pd.DataFrame, after: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    """Say what differs between two sets of rows, a line each."""
    keys = [name for name in after.columns if name not in (*metrics, "digest")]
    if set(keys) != set(before.columns) - {*metrics, "digest"}:
        return [f"other columns: {', '.join(before.columns)} before"]

    def by_key(rows: pd.DataFrame) -> dict[tuple[str, ...], Any]:
        return {tuple(map(str, row[keys])): row for _, row in rows.iterrows()}

    old, new = by_key(before), by_key(after)
    found = [f"gone: {' '.join(key)}" for key in old.keys() - new.keys()]
    found += [f"new: {' '.join(key)}" for key in new.keys() - old.keys()]
    for key in new.keys() & old.keys():
        for name in metrics:
            was, now = old[key].get(name), new[key][name]
            if was != now and not (pd.isna(was) and pd.isna(now)):
                found.append(f"{' '.join(key)}: {name} {was} -> {now}")
    return sorted(found)
