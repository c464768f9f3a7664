"""Under which circumstances runs were measured, in the words of a table's notes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from specmd.runs.run import Run


def circumstances(runs: Sequence[Run]) -> list[str]:
    """Say of measured runs how evenly they ran and what they took; ranges where they differ."""
    found = [run.measurement for run in runs if run.measurement is not None]
    if not found:
        return []

    spreads = [each.spread["tpot_s"] for each in found if "tpot_s" in each.spread]
    counts = _span((each.repetitions for each in found), "{:.0f}")
    warm = _span((each.warmup_runs for each in found), "{:.0f}")
    text = f"measured: {counts} repetitions after {warm} of warm-up, each from an empty cache"
    if spreads:
        text += f"; TPOT ± {_span((s.stdev / s.mean * 100 for s in spreads), '{:.1f}')} %"
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


def _span(values: Iterable[float], form: str) -> str:
    """Spell the least and the largest value, once if they read alike."""
    texts = [form.format(value) for value in sorted(values)]
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"
