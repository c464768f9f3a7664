"""Every metric, declared once: name, unit, direction, formula, and how it is written.

Tables, CSV headers, axis labels and the choices of `--metric` are derived from these declarations,
so a number means the same everywhere. Values are kept in SI units and plain counts; scaling (ms,
MB, %) happens here, at the edge, and nowhere else.

Two words carry the whole accounting. A *hit* is an expert that was READY when its layer asked for
it; *late* is one whose transfer had begun but not ended, which is neither a hit nor a miss: it
moved its bytes ahead of time and still made the layer wait.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from specmd.errors import unknown

Unit = Literal[
    "count", "share", "ratio", "bytes", "bytes/token", "s", "tokens/s", "nats", "tokens", "number"
]
Better = Literal["higher", "lower", "neither"]
Group = Literal["count", "rate", "prefetch", "bytes", "time", "quality", "own"]
Value = int | float | None

_SCALES: dict[Unit, tuple[float, str, int]] = {
    "count": (1.0, "", 0),
    "share": (100.0, "%", 2),
    "ratio": (1.0, "", 2),
    "bytes": (1e-9, "GB", 3),
    "bytes/token": (1e-6, "MB/token", 2),
    "s": (1e3, "ms", 3),
    "tokens/s": (1.0, "tokens/s", 2),
    "number": (1.0, "", 6),  # of a policy's own: nobody knows its unit
    "nats": (1.0, "nats", 5),
    "tokens": (1.0, "tokens", 1),
}


@dataclass(frozen=True)
class Metric:
    """One metric: what it is called, what it counts, and which way is better."""

    name: str
    title: str
    unit: Unit
    better: Better
    group: Group
    formula: str

    @property
    def label(self) -> str:
        """Axis label or column header, with the unit numbers are written in: `TPOT (ms)`."""
        shown = _SCALES[self.unit][1]
        return f"{self.title} ({shown})" if shown else self.title

    def scaled(self, value: Value) -> float | None:
        """Return the value in the unit of `label`, for axes; None stays None."""
        return None if value is None else value * _SCALES[self.unit][0]

    def digits(self, values: Iterable[Value]) -> int:
        """Return the decimals with which every one of the values has three digits, but no more.

        Shares have one, or two where all are below 10 %; counts and ratios are what they are.
        """
        most = _SCALES[self.unit][2]
        if self.unit in ("count", "ratio"):
            return most
        scaled = [abs(each) for value in values if (each := self.scaled(value))]
        shown = [each for each in scaled if math.isfinite(each)]
        if self.unit == "number" and all(each.is_integer() for each in shown):
            return 0
        if self.unit == "share":
            return 1 if not shown or max(shown) >= 10 else most
        return min(max(2 - math.floor(math.log10(min(shown, default=1))), 0), most)

    def text(self, value: Value, *, with_unit: bool = False, digits: int | None = None) -> str:
        """Write a value as tables show it: `12.34`, or `12.34 %` with its unit; `-` for None."""
        scaled = self.scaled(value)
        if scaled is None or not math.isfinite(scaled):
            return "-"
        shown, usual = _SCALES[self.unit][1:]
        if digits is None and self.unit == "number":
            return f"{scaled:,.6g}"
        digits = usual if digits is None else digits
        written = f"{scaled:,.{digits}f}"
        return f"{written} {shown}" if with_unit and shown else written

    def is_better(self, value: float, than: float) -> bool:
        """Say whether `value` beats `than`; never for a metric without a direction."""
        if self.better == "neither":
            return False
        return value > than if self.better == "higher" else value < than


PERCENTILES = (50, 90, 99)
"""Percentiles of TTFT and TPOT, by linear interpolation between the two nearest values."""


class Part(NamedTuple):
    """A part of a step's time. Whoever spends time on it adds to its column; all else derives."""

    title: str
    meaning: str
    colour: str
    is_stall: bool = False


PARTS: dict[str, Part] = {
    "compute": Part("compute", "kernels of attention, router and experts run", "#b8c4cc"),
    "disk_stall": Part(
        "disk stall", "the device waits for an expert still on the disk", "#1f1f1f", True
    ),
    "demand_stall": Part(
        "demand stall", "the device waits for an expert asked for on demand", "#4d4d4d", True
    ),
    "late_prefetch_stall": Part(
        "late-prefetch stall", "the device waits for a prefetch under way", "#8a8a8a", True
    ),
    "cpu_expert": Part(
        "CPU experts", "the device waits for experts computed on the host", "#c9b28f"
    ),
    "overhead": Part(
        "overhead", "embedding, output head, launches and what is done once a step", "#e3e3e3"
    ),
}
"""The parts of a step; they add up to its duration."""

PART_COLUMN = {name: column for column, name in enumerate(PARTS)}
"""Column of each part in arrays of seconds of shape (steps, PARTS)."""


def _declare() -> dict[str, Metric]:
    """Build the table; the order is the order of columns."""
    found: dict[str, Metric] = {}

    def add(name: str, title: str, unit: Unit, better: Better, group: Group, formula: str) -> None:
        found[name] = Metric(name, title, unit, better, group, formula)

    # fmt: off
    add("accesses", "accesses", "count", "neither", "count",
        "hits + late_hits + misses: distinct experts asked for, summed over all layers and steps")
    add("hits", "hits", "count", "higher", "count",
        "reuse_hits + prefetch_hits: the expert was READY when its event began")
    add("reuse_hits", "reuse hits", "count", "higher", "count",
        "hits on an expert that was used before in its present stay")
    add("prefetch_hits", "prefetch hits", "count", "higher", "count",
        "hits that are the first use of a prefetched expert")
    add("late_hits", "late hits", "count", "lower", "count",
        "accesses to an expert whose transfer was under way")
    add("misses", "misses", "count", "lower", "count",
        "compulsory_misses + collision_misses + capacity_misses")
    add("compulsory_misses", "compulsory misses", "count", "lower", "count",
        "misses on an expert never fetched before")
    add("collision_misses", "collision misses", "count", "lower", "count",
        "misses on an expert evicted earlier in the same step")
    add("capacity_misses", "capacity misses", "count", "lower", "count",
        "misses that are neither compulsory nor collisions")
    add("bypassed", "bypassed", "count", "neither", "count",
        "misses that were fetched but not admitted to the cache")
    add("host_experts", "host experts", "count", "neither", "count",
        "misses that were computed on the host: not fetched, no slot taken")
    add("deferred", "deferred", "count", "neither", "count",
        "host_experts whose output the next layer added, while their own did not wait for them")
    add("lowbit_fetches", "low-bit fetches", "count", "neither", "count",
        "misses of which a copy of few bits was fetched")
    add("lowbit_hits", "low-bit hits", "count", "neither", "count",
        "hits on an expert whose copy in the cache is of few bits")
    add("substituted", "substituted", "count", "lower", "count",
        "misses that were not fetched: other experts stood in for all tokens that needed them")
    add("dropped", "dropped", "count", "lower", "count",
        "misses that nobody computed")
    add("substitute_uses", "substitute uses", "count", "neither", "count",
        "stand-ins outside the experts asked for: touched like hits, no accesses")
    add("rerouted", "rerouted", "count", "neither", "count",
        "distinct experts of the true choice that no token executed after routing was changed")
    add("evictions", "evictions", "count", "lower", "count", "experts that left the cache")
    add("unused_evictions", "unused evictions", "count", "lower", "count",
        "evictions of an expert that was fetched and never used")
    add("hit_rate", "hit rate", "share", "higher", "rate", "hits / accesses")
    add("token_hit_rate", "token hit rate", "share", "higher", "rate",
        "hits / accesses, each access weighted by the tokens that chose the expert")
    add("late_rate", "late rate", "share", "lower", "rate", "late_hits / accesses")
    add("miss_rate", "miss rate", "share", "lower", "rate", "misses / accesses")
    add("collision_rate", "collision rate", "share", "lower", "rate", "collision_misses / accesses")
    add("true_hit_rate", "true hit rate", "share", "higher", "rate",
        "share of the experts of the true choice that were READY when their event began")
    add("kept_mass", "kept mass", "share", "higher", "rate",
        "router weight of true (token, expert) pairs that were executed exactly / all of it")
    add("lowbit_mass", "low-bit mass", "share", "lower", "rate",
        "router weight of true pairs that were executed with a copy of few bits / all of it")
    add("substituted_mass", "substituted mass", "share", "lower", "rate",
        "router weight of true pairs in whose place another expert was executed, or whose expert's "
        "output was added by the next layer / all of it")
    add("dropped_mass", "dropped mass", "share", "lower", "rate",
        "router weight of true pairs in whose place nothing was executed / all of it")
    add("changed_rows", "changed rows", "share", "lower", "rate",
        "share of (token, layer) rows whose executed set of experts is not the true one")
    add("prefetch_issued", "prefetches issued", "count", "neither", "prefetch",
        "prefetch_useful + prefetch_late + prefetch_wasted + prefetch_cancelled")
    add("prefetch_useful", "useful prefetches", "count", "higher", "prefetch",
        "prefetched experts READY at their first use (= prefetch_hits)")
    add("prefetch_late", "late prefetches", "count", "lower", "prefetch",
        "prefetched experts still under way at their first use (= late_hits)")
    add("prefetch_wasted", "wasted prefetches", "count", "lower", "prefetch",
        "prefetched experts that were evicted, or left at the end, without a use")
    add("prefetch_cancelled", "cancelled prefetches", "count", "neither", "prefetch",
        "prefetches withdrawn before their transfer began; they moved no bytes")
    add("prefetch_redundant", "redundant prefetches", "count", "neither", "prefetch",
        "asked for while resident or under way: never issued")
    add("prefetch_dropped", "dropped prefetches", "count", "lower", "prefetch",
        "asked for while no slot could be taken: never issued")
    add("prefetch_precision", "prefetch precision", "share", "higher", "prefetch",
        "(prefetch_useful + prefetch_late) / prefetch_issued")
    add("prediction_recall", "recall", "share", "higher", "prefetch",
        "demanded experts that were proposed for their event / accesses; whatever became of them")
    add("prediction_precision", "precision", "share", "higher", "prefetch",
        "proposed experts that the event they were due in demanded / proposed ones")
    add("prefetch_timeliness", "timeliness", "share", "higher", "prefetch",
        "prefetch_useful / (prefetch_useful + prefetch_late); 100 % without a clock")
    add("bytes_demand", "demand traffic", "bytes", "lower", "bytes",
        "bytes of the copies fetched for misses")
    add("bytes_prefetch_useful", "useful prefetch traffic", "bytes", "neither", "bytes",
        "bytes of the experts counted in prefetch_useful and prefetch_late")
    add("bytes_prefetch_wasted", "wasted prefetch traffic", "bytes", "lower", "bytes",
        "bytes of the experts counted in prefetch_wasted")
    add("bytes_per_token", "traffic", "bytes/token", "lower", "bytes",
        "(bytes_demand + bytes_prefetch_useful + bytes_prefetch_wasted) / tokens")
    add("no_cache_bytes_per_token", "traffic without a cache", "bytes/token", "neither", "bytes",
        "bytes of the experts asked for / tokens")
    add("host_hits", "host hits", "count", "higher", "count",
        "transfers to the device, or experts computed on the host, that were in host memory")
    add("host_misses", "host misses", "count", "lower", "count",
        "transfers to the device, or experts computed on the host, read from the disk first")
    add("host_hit_rate", "host hit rate", "share", "higher", "rate",
        "host_hits / (host_hits + host_misses)")
    add("bytes_disk", "disk traffic", "bytes", "lower", "bytes",
        "bytes of the experts counted in host_misses")
    add("disk_bytes_per_token", "disk traffic", "bytes/token", "lower", "bytes",
        "bytes_disk / tokens")
    for short, title, what in (
        ("ttft", "TTFT", "from the start of a request's prefill to its first token"),
        ("tpot", "TPOT", "duration of a decode step"),
    ):
        add(f"{short}_s", title, "s", "lower", "time", f"{what}; mean")
        for percentile in PERCENTILES:
            add(f"{short}_p{percentile}_s", f"{title} p{percentile}", "s", "lower", "time",
                f"{what}; {percentile}th percentile")
        for part, (part_title, meaning, *_) in PARTS.items():
            add(f"{short}_{part}_s", f"{title}: {part_title}", "s", "lower", "time",
                f"part of {short}_s in which {meaning}; the parts add up to {short}_s")
    add("total_s", "total time", "s", "lower", "time", "all counted steps, one after another")
    for part, (part_title, meaning, *_) in PARTS.items():
        add(f"total_{part}_s", f"total: {part_title}", "s", "lower", "time",
            f"part of total_s in which {meaning}; the parts add up to total_s")
    add("total_predict_s", "total: prediction", "s", "lower", "time",
        "time the prefetcher's kernels and software take, each in the layer that looks ahead; "
        "within compute and overhead")
    add("tokens_per_s", "output", "tokens/s", "higher", "time",
        "output tokens / total_s: one for every token decoded, one for every whole prefill")
    stalls = " + ".join(f"total_{name}_s" for name, part in PARTS.items() if part.is_stall)
    add("stall_share", "stall share", "share", "lower", "time", f"({stalls}) / total_s")
    add("over_roofline", "x roofline", "ratio", "lower", "time",
        "total_s / roofline_s, the least time of any lossless policy: see specmd.simulation.bounds")
    add("link_busy_share", "link busy", "share", "neither", "time",
        "time in which the host link carries bytes / total_s")
    add("disk_busy_share", "disk busy", "share", "neither", "time",
        "time in which the disk is read / total_s")
    add("quality_kl", "KL", "nats", "lower", "quality",
        "mean over positions of KL(lossless || this run) of the next token's distribution, "
        "teacher-forced on the same text; measured only")
    add("quality_ppl_ratio", "perplexity ratio", "ratio", "lower", "quality",
        "perplexity of that text / perplexity in the lossless run")
    add("quality_top1", "top-1 agreement", "share", "higher", "quality",
        "share of positions at which the likeliest next token is the lossless run's")
    add("greedy_match", "greedy match", "tokens", "higher", "quality",
        "tokens generated greedily until the first that differs from the lossless run's; mean")
    # fmt: on
    return found


METRICS: Mapping[str, Metric] = _declare()
"""Every metric by name, in the order of columns."""


def metric(name: str) -> Metric:
    """Look a metric up; raises SpecmdError with the closest names."""
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    return METRICS[name]


def choices(group: Group | None = None) -> list[str]:
    """Names of all metrics, or of one group, in the order of columns."""
    return [name for name, found in METRICS.items() if group in (None, found.group)]
