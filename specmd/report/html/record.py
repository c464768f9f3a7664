"""Every run as a row of the page's table, with its contract and provenance, each said once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from specmd.report.html.points import REGRET, Columns, declared, digits, packed
from specmd.report.html.scenes import settings, slots_bytes, trace_names
from specmd.report.names import caption, policy_name, varied_axes
from specmd.report.panels import share
from specmd.report.table import default_metrics
from specmd.runs.metrics import METRICS
from specmd.runs.options import RunConfig
from specmd.runs.run import Run

_ABOUT = ("contract", "provenance", "trace", "measurement", "memory", "regime")


def table(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the table's columns, packed, with what a reader must know of each.

    `columns` has name, label, direction and whether it is shown at first; `about` what runs say of
    themselves by section, each text once, and `of` which belongs to which run.
    """
    varied = [axis for axis in varied_axes(runs) if axis != "seed"]
    names = trace_names(runs)
    ok = [run for run in runs if run.status == "ok"]
    said = dict(zip([run.id for run in ok], settings(ok), strict=True))
    head = (
        *("policy", "trace", "device", "setting", "source", "status"),
        *("seed", "slots", "share", "GB"),
    )
    seeds = len({run.config.seed for run in runs}) > 1
    columns: Columns = {name: [] for name in head}
    named = [name for name in METRICS if any(run.metrics.get(name) for run in runs)]
    columns |= {name: [] for name in (*named, REGRET.name)}
    for run in runs:
        size = slots_bytes(run)
        row: dict[str, Any] = {
            "status": run.status,
            "source": run.source,
            "trace": names[run.trace.digest, run.trace.name],
            "setting": said.get(run.id) or None,
            "seed": run.config.seed if seeds else None,
            "device": caption(run),
            "policy": policy_name(run, varied),
            "slots": run.config.capacity_slots,
            "share": digits(share(run)),
            "GB": None if size is None else digits(size / 1e9),
            REGRET.name: digits(REGRET.scaled(run.bounds.regret_share if run.bounds else None)),
        }
        for name in named:
            scaled = METRICS[name].scaled(run.metrics.get(name))
            row[name] = digits(scaled, 9 if METRICS[name].unit == "count" else 4)
        for name, column in columns.items():
            column.append(row[name])
    usual = [*default_metrics(runs), "bytes_per_token", REGRET.name]
    usual.sort(key=lambda name: (declared(name).group != "time", name != "hit_rate"))
    named = [name for name in usual if name in columns] + [n for n in columns if n not in usual]
    shown = {*head, *usual} - {"misses", "source"}
    about = [
        {"name": name, "label": name, "text": name not in ("seed", "slots", "share", "GB")}
        | {"shown": name in shown, "better": "neither", "formula": ""}
        for name in head
    ]
    about[head.index("share")]["label"] = "capacity (%)"
    for metric in (declared(name) for name in dict.fromkeys(named) if name not in head):
        about.append(
            {"name": metric.name, "label": metric.label, "text": False}
            | {"shown": metric.name in shown, "better": metric.better, "formula": metric.formula}
        )
    filled = {name for name, column in columns.items() if any(v is not None for v in column)}
    return {
        "columns": [each for each in about if each["name"] in filled],
        "data": packed({name: each for name, each in columns.items() if name in filled}),
        "of": _about(runs),
    }


def _about(runs: Sequence[Run]) -> dict[str, Any]:
    """Return sections of texts, each text once, and their places by run."""
    found: dict[str, Any] = {}
    for section in _ABOUT:
        texts = [_said(getattr(run, section)) for run in runs]
        found[section] = _once(texts)
    for name in RunConfig.model_fields:
        values = [getattr(run.config, name) for run in runs]
        found[f"config.{name}"] = _once([json.dumps(each) for each in values])
    found["warnings"] = _once([json.dumps(run.warnings) for run in runs])
    found["reason"] = _once([json.dumps(run.reason) for run in runs])
    found["id"] = [run.id for run in runs]
    found["decision_digest"] = [run.decision_digest for run in runs]
    return found


def _said(about: Any) -> str:
    if about is None:
        return "null"
    plain = about if isinstance(about, dict) else about.model_dump(mode="json")
    return json.dumps(plain, ensure_ascii=False)


def _once(texts: Sequence[str]) -> dict[str, Any]:
    """Write JSON texts once each, with their places; a single one needs no places."""
    words = list(dict.fromkeys(texts))
    places = {text: place for place, text in enumerate(words)}
    parsed = [json.loads(text) for text in words]
    return {"words": parsed, "at": [places[text] for text in texts] if len(words) > 1 else 0}


def contract_rows(runs: Sequence[Run]) -> list[tuple[str, str, list[tuple[str, int]]]]:
    """Say the contract and the provenance as section, name and values with their number of runs."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for run in runs:
        for section in ("contract", "provenance"):
            for name, value in getattr(run, section).items():
                facts = value if isinstance(value, dict) else {"": value}
                for inner, each in facts.items():
                    spelled = each if isinstance(each, str) else json.dumps(each)
                    if isinstance(each, list):
                        spelled = " ".join(map(str, each))
                    key = (section, f"{name} {inner}".strip())
                    counts = found.setdefault(key, {})
                    counts[spelled] = counts.get(spelled, 0) + 1
    return [(*key, list(counts.items())) for key, counts in found.items()]
