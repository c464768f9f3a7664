"""Hit rates at every capacity, as rows of text and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from specmd.errors import SpecmdError
from specmd.report.figures import figure_format, save
from specmd.report.panels import BOUND, COLOURS, percent, three_digits
from specmd.runs.options import RunConfig
from specmd.runs.pools import parse_capacity, pools_of
from specmd.simulation.curves import Rule, curve

if TYPE_CHECKING:
    from specmd.trace import Trace

Rates = dict[Rule, npt.NDArray[np.float64]]
RULES: dict[Rule, str] = {
    "lru": "LRU",
    "belady": "Belady",
    "belady:bypass=true": "Belady with bypass",
}
SHARES = (1, 2, 5, 10, 15, 20, 30, 40, 50, 60, 80, 100)
"""Capacities that are shown, in percent of all experts."""


def hit_rates(trace: Trace) -> Rates:
    """Return, for each rule, the hit rate of one pool of 0, 1, 2, ... slots, from a cold start."""
    found: Rates = {}
    for rule in RULES:
        config = RunConfig(evict=rule, capacity="100%", capacity_slots=1)
        one = curve(trace, config, rule)
        found[rule] = one.all_hits(trace.header, config) / one.accesses
    return found


def rate_rows(trace: Trace, rates: Rates) -> list[tuple[str, str]]:
    """Say the rates at some capacities, a line each."""
    header = trace.header
    rows = []
    for share in SHARES:
        try:
            slots = parse_capacity(f"{share}%", header.num_layers, header.num_experts, None)
        except SpecmdError:  # less than one slot
            continue
        size = ""
        if header.layer_bytes:
            config = RunConfig(capacity=str(slots), capacity_slots=slots)
            size = f"{three_digits(pools_of(header, config).bytes(header.layer_bytes) / 1e6)} MB"
        line = ", ".join(f"{RULES[rule]} {each[slots]:6.1%}" for rule, each in rates.items())
        rows.append((f"{slots:,} slots", f"{share:>3} % {size:>11}  {line}"))
    return rows


def draw_rates(rates: Rates, title: str, path: Path) -> None:
    """Draw the rates; raises SpecmdError if the file cannot be written."""
    from matplotlib.figure import Figure

    figure_format(path)
    figure = Figure(figsize=(5.6, 4.0), layout="constrained", dpi=150)
    axes = figure.subplots()
    keys = len(next(iter(rates.values()))) - 1
    shares = 100 * np.arange(keys + 1) / keys
    styles: dict[str, tuple[str, str]] = {"lru": (COLOURS["lru"], "-"), "belady": (BOUND, ":")}
    for rule, each in rates.items():
        shade, line = styles.get(rule, (BOUND, "-."))
        axes.plot(shares[1:], 100 * each[1:], color=shade, ls=line, label=RULES[rule])
    axes.set_xscale("log")
    ticks = [share for share in (1, 2, 5, 10, 20, 40, 100) if share >= shares[1]]
    axes.set_xticks(ticks, [percent(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, 100)
    axes.set_xlabel("capacity (% of all experts)")
    axes.set_ylabel("hit rate (%)")
    axes.set_title(title, fontsize=9)
    axes.grid(axis="y", color="#dddddd", lw=0.6)
    axes.legend(frameon=False, fontsize=8)
    save(figure, path)
