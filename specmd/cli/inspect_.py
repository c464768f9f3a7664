"""`specmd inspect`: what a trace holds, how local it is, and how much of it a step touches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from specmd.cli import completion

if TYPE_CHECKING:
    from specmd.report.text import Section, Table
    from specmd.trace import Locality, Trace
    from specmd.trace.statistics import Spread


def inspect_(
    trace: Annotated[
        Path, typer.Argument(metavar="TRACE", help="Trace file.", autocompletion=completion.traces)
    ],
    form: Annotated[
        Literal["table", "md", "json"], typer.Option("--format", help="Output format.")
    ] = "table",
    verify: Annotated[
        bool, typer.Option("--verify", help="Also compare the content with its digest.")
    ] = False,
    curve: Annotated[
        bool, typer.Option("--curve", help="Also hit rates of LRU and Belady at all capacities.")
    ] = False,
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw these hit rates: .png, .svg or .pdf."),
    ] = None,
) -> None:
    """Print a trace's header, locality and regime."""
    from specmd.cli.output import show
    from specmd.runs.answers import answers
    from specmd.trace import load, locality

    if figure:
        from specmd.report.figures import figure_format

        figure_format(figure)
    loaded = load(trace, verify=verify)
    measured = locality(loaded)
    record: dict[str, Any] = {
        "path": str(trace),
        "header": loaded.header.model_dump(mode="json", by_alias=True) | {"digest": loaded.digest},
        "sizes": _sizes(loaded),
        "locality": measured.model_dump(mode="json"),
        "regime": _regime(loaded, measured),
        "answers": answers(loaded, measured),
        "warnings": _warnings(loaded, measured),
    }
    rates: list[tuple[str, str]] = []
    if curve or figure:
        from specmd.report.curves import draw_rates, hit_rates, rate_rows

        found = hit_rates(loaded)
        record["hit_rate_by_slots"] = {rule: each.tolist() for rule, each in found.items()}
        rates = rate_rows(loaded, found)
        if figure:
            draw_rates(found, f"{trace.stem}: {measured.keys_total:,} experts", figure)
    if form == "json":
        import json

        typer.echo(json.dumps(record, indent=1, allow_nan=False))
        return
    show(form, [record], _table(trace, loaded, measured, record, rates))


def _sizes(trace: Trace) -> dict[str, Any]:
    wide = int((trace.phase == 0).sum())
    return {
        "tokens": trace.num_tokens,
        "prefill_tokens": wide,
        "decode_tokens": trace.num_tokens - wide,
        "steps": trace.num_steps,
        "requests": trace.num_requests,
        "arrays": {
            name: [str(array.dtype), *array.shape] for name, array in trace.arrays().items()
        },
    }


def _regime(trace: Trace, measured: Locality) -> dict[str, Any]:
    """Return |U| and T, and the capacity below which a global LRU cannot hit in batch-1 decode."""
    steps = measured.step_keys_decode or measured.step_keys
    return {
        "event_keys": measured.event_keys.model_dump(),
        "step_keys": measured.step_keys.model_dump(),
        "step_keys_share": steps.p50 / measured.keys_total,
        "lru_never_hits_up_to_slots": max(0, int(steps.p50) - trace.header.top_k),
    }


def _warnings(trace: Trace, measured: Locality) -> list[str]:
    found = []
    if trace.header.kind == "synthetic":
        found.append("synthetic trace: made-up routing, for tests and demonstrations only")
    if not trace.header.complete:
        found.append("truncated: the recording or the import stopped early")
    if trace.header.expert_bytes is None:
        found.append("expert size unknown: no capacities in bytes, no times")
    if measured.looping_requests:
        found.append(
            f"{measured.looping_requests:.0%} of the requests end in a repeating loop, which "
            "flatters every cache"
        )
    return found


def _table(
    path: Path,
    trace: Trace,
    measured: Locality,
    record: dict[str, Any],
    rates: list[tuple[str, str]],
) -> Table:
    from specmd.report.text import Column, Section, Table, cells

    header, sizes = trace.header, record["sizes"]
    size = f"{header.expert_bytes:,} bytes" if header.expert_bytes else "unknown size"
    made = " by ".join(text for text in (header.kind, header.recorder) if text)
    facts = [
        ("model", header.model),
        (
            "experts",
            f"{header.num_layers} layers x {header.num_experts} = {measured.keys_total:,} "
            f"of {size}, top-{header.top_k}",
        ),
        (
            "tokens",
            f"{sizes['tokens']:,} ({sizes['prefill_tokens']:,} prefill, "
            f"{sizes['decode_tokens']:,} decode)",
        ),
        ("steps", f"{sizes['steps']:,} of {sizes['requests']:,} requests"),
        ("made", made),
        ("source", header.source),
        ("license", header.license),
        ("notes", header.notes),
        ("arrays", ", ".join(sizes["arrays"])),
        ("digest", trace.digest),
    ]
    sections = [
        Section([cells(name, text) for name, text in facts if text], "Header"),
        _locality_section(measured),
        _regime_section(measured, record["regime"]),
        _answers_section(record["answers"], measured.keys_total),
    ]
    if rates:
        title = "Hit rate by capacity (one pool, no prefetch, cold start)"
        sections.append(Section([cells(*row) for row in rates], title))
    notes = [f"warning: {text}" for text in record["warnings"]]
    return Table([Column(""), Column("")], sections, notes, title=str(path))


def _locality_section(measured: Locality) -> Section:
    from specmd.report.text import Section, cells

    entropy, tenth = measured.popularity_entropy, measured.top_tenth_share
    rows = [
        (
            "keys used",
            f"{measured.keys_used:,} of {measured.keys_total:,} (a cache this large never evicts)",
        ),
        (
            "popularity entropy",
            f"{_mean(entropy):.3f} of uniform (layers {min(entropy):.3f} to {max(entropy):.3f})",
        ),
        (
            "top tenth of experts",
            f"{_mean(tenth):.1%} of uses (layers {min(tenth):.1%} to {max(tenth):.1%})",
        ),
    ]
    if measured.previous_step_reuse is not None:
        by_layer = measured.previous_step_reuse_by_layer
        chance = measured.previous_step_reuse_random
        beside = "" if chance is None else f"; {chance:.1%} by chance"
        rows.append(
            (
                "reuse of previous step",
                f"{measured.previous_step_reuse:.1%} of keys (layers {min(by_layer):.1%} to "
                f"{max(by_layer):.1%}{beside})",
            )
        )
    rows += _distance_rows(measured)
    for label, recall in (
        ("lookahead recall", measured.lookahead_recall),
        ("renormalised recall", measured.lookahead_renormalised_recall),
    ):
        if recall:
            depths = ", ".join(f"depth {d} {share:.1%}" for d, share in enumerate(recall, 1))
            rows.append((label, depths))
    return Section([cells(*row) for row in rows], "Locality")


def _distance_rows(measured: Locality) -> list[tuple[str, str]]:
    """Sum the reuse distances up: the share of uses an LRU cache of so many slots would hit."""
    counts, total = measured.reuse_distance_counts, measured.reuse_accesses
    rows: list[tuple[str, str]] = []
    below, shown = 0, -1.0
    for exponent, count in enumerate(counts):
        below += count
        share = below / total
        slots = 1 << exponent
        last = exponent + 1 == len(counts)
        if share - shown < 0.05 and not last:
            continue
        label = "" if rows else "reuse distance"
        rows.append((label, f"< {slots:>6,} other keys: {share:6.1%} of uses"))
        shown = share
    rows.append(("", f"first uses:          {measured.reuse_first_uses / total:6.1%} of uses"))
    return rows


def _regime_section(measured: Locality, regime: dict[str, Any]) -> Section:
    from specmd.report.text import Section, cells

    rows: list[tuple[str, str]] = []
    for label, spread in (
        ("|U|, decode", measured.event_keys_decode),
        ("|U|, prefill", measured.event_keys_prefill),
        ("T, decode", measured.step_keys_decode),
        ("T, prefill", measured.step_keys_prefill),
    ):
        if spread is not None:
            what = "keys a layer of a step" if label.startswith("|U|") else "keys a step"
            rows.append((label, _spread(spread, what)))
    never = regime["lru_never_hits_up_to_slots"]
    steps = measured.step_keys_decode or measured.step_keys
    if never:
        how = "never hits" if steps.mean == steps.p50 == steps.p95 else "hardly hits"
        rows.append(("global LRU", f"{how} in decode up to {never:,} slots (T - K)"))
    return Section([cells(*row) for row in rows], "Regime")


def _answers_section(found: dict[str, Any], keys: int) -> Section:
    """Say what the trace can answer, and what it cannot."""
    from specmd.report.text import Section, cells

    ttft = {
        "recorded": f"yes: {found['whole_prompts']:,} whole prompts",
        "estimated": "an estimate: prompts are not recorded, but how long they are",
        "none": "no: no whole prompt is recorded",
    }[found["ttft"]]
    low, high = found["in_flight"] or (0, 0)
    flight = f"{high:,}" if low == high else f"{low:,} to {high:,}"
    sizes, short = found["expert_bytes"], found["short_from_slots"]
    skipped: dict[str, list[str]] = {}
    for policy, need in found["skipped"].items():
        skipped.setdefault(need, []).append(policy)
    missing = "; ".join(f"{', '.join(names)} (need {need})" for need, names in skipped.items())
    rows = [
        ("TTFT", ttft + (f"; {found['cut_prompts']:,} are cut" if found["cut_prompts"] else "")),
        ("TPOT", f"yes: {flight} in flight" if high else "no: no decode step"),
        ("batches", f"up to {found['largest_batch']:,} in flight (--batch)"),
        ("cold requests", f"{1 + found['reset_steps']:,} starts (--reset request)"),
        (
            "bytes, times",
            "no: expert size unknown"
            if sizes is None
            else f"yes: experts of {' and '.join(f'{size:,}' for size in (sizes[0], sizes[-1]))} "
            f"bytes ({len(sizes):,} sizes)"
            if len(sizes) > 1
            else "yes: experts of one size",
        ),
        ("policies", f"all but {missing}" if missing else "all"),
        ("of routing", "yes: logits are recorded" if found["logits"] else "no: no logits"),
        (
            "policies apart",
            f"below {short:,} slots ({short / keys:.0%}); above, misses are mostly first uses",
        ),
    ]
    return Section([cells(*row) for row in rows], "What it can answer")


def _spread(spread: Spread, what: str) -> str:
    return f"p50 {spread.p50:,.0f}, p95 {spread.p95:,.0f}, mean {spread.mean:,.1f} {what}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
