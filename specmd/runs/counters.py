"""From the core's counters to metrics: sums, rates and bytes, and the identities that must hold.

The core counts into one row per phase and layer. Any sum of rows is again a row, so the totals and
the breakdowns by phase and by layer are the same arithmetic on different sums. What moved is
counted in the row of its layer, so bytes are true where the layers' experts differ in size.

Two identities guard the accounting: every access is exactly one of hit, late and miss, and every
prefetch that was issued ends exactly once, as useful, late, wasted or cancelled (those still open
when the warm-up ends count as issued then).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from specmd.core import state as core
from specmd.runs.run import Metrics, Value
from specmd.trace.header import DECODE, PREFILL

Counters = npt.NDArray[np.int64]

MISSES = core.COMPULSORY_MISSES, core.COLLISION_MISSES, core.CAPACITY_MISSES
UNMOVED = core.HOST_EXPERTS, core.SUBSTITUTED, core.DROPPED
"""Misses of which no copy was fetched."""
PHASES = {PREFILL: "prefill", DECODE: "decode"}


class AccountingError(AssertionError):
    """The counters contradict each other: a bug in SpecMD, never the user's fault."""


def tally(
    rows: Counters,
    layer_bytes: Sequence[int] | None,
    tokens: int | None = None,
    low_share: float = 1.0,
) -> Metrics:
    """Turn the counters of some layers, (layers, NUM_COUNTERS), into metrics.

    Bytes are None without `layer_bytes`, those of an expert of each of the layers; bytes per token
    are left out without `tokens`. Rates of nothing are None. `low_share` is what a low-bit copy
    has of an expert's bytes.
    """
    count = rows.sum(axis=0).tolist()
    hits = count[core.REUSE_HITS] + count[core.PREFETCH_HITS]
    late = count[core.LATE_HITS]
    misses = sum(count[kind] for kind in MISSES)
    accesses = count[core.ACCESSES]
    issued = count[core.PREFETCH_ISSUED]
    useful = count[core.PREFETCH_HITS]
    wasted = count[core.PREFETCH_WASTED]

    def sized(*kinds: int) -> int | None:
        if layer_bytes is None:
            return None
        return int(rows[:, kinds].sum(axis=1) @ np.asarray(layer_bytes, np.int64))

    demand = less(sized(*MISSES), sized(*UNMOVED))
    low = sized(core.LOWBIT_FETCHES)
    if demand is not None and low:
        demand -= round(low * (1.0 - low_share))
    ahead = sized(core.PREFETCH_HITS, core.LATE_HITS)
    unused = sized(core.PREFETCH_WASTED)
    found: Metrics = {
        "accesses": accesses,
        "hits": hits,
        "reuse_hits": count[core.REUSE_HITS],
        "prefetch_hits": useful,
        "late_hits": late,
        "misses": misses,
        "compulsory_misses": count[core.COMPULSORY_MISSES],
        "collision_misses": count[core.COLLISION_MISSES],
        "capacity_misses": count[core.CAPACITY_MISSES],
        "bypassed": count[core.BYPASSED],
        "evictions": count[core.EVICTIONS],
        "unused_evictions": count[core.UNUSED_EVICTIONS],
        "hit_rate": share(hits, accesses),
        "token_hit_rate": share(count[core.TOKEN_HITS], count[core.TOKEN_ACCESSES]),
        "late_rate": share(late, accesses),
        "miss_rate": share(misses, accesses),
        "collision_rate": share(count[core.COLLISION_MISSES], accesses),
        "prefetch_issued": issued,
        "prefetch_useful": useful,
        "prefetch_late": late,
        "prefetch_wasted": wasted,
        "prefetch_cancelled": count[core.PREFETCH_CANCELLED],
        "prefetch_redundant": count[core.PREFETCH_REDUNDANT],
        "prefetch_dropped": count[core.PREFETCH_DROPPED],
        "prefetch_precision": share(useful + late, issued),
        "prefetch_timeliness": share(useful, useful + late),
        "host_experts": count[core.HOST_EXPERTS],
        "deferred": count[core.DEFERRED],
        "lowbit_fetches": count[core.LOWBIT_FETCHES],
        "lowbit_hits": count[core.LOWBIT_HITS],
        "substituted": count[core.SUBSTITUTED],
        "dropped": count[core.DROPPED],
        "substitute_uses": count[core.SUBSTITUTE_USES],
        "rerouted": count[core.REROUTED],
        "bytes_demand": demand,
        "bytes_prefetch_useful": ahead,
        "bytes_prefetch_wasted": unused,
    }
    asked_for = count[core.TRUE_ACCESSES]
    found["true_hit_rate"] = share(count[core.TRUE_HITS], asked_for)
    if not asked_for:
        found["true_hit_rate"] = found["hit_rate"]  # what is executed is what was chosen
    found["changed_rows"] = share(count[core.CHANGED_ROWS], count[core.ROWS] or 1)
    if tokens is not None:
        parts = (demand, ahead, unused)
        moved = None if None in parts else sum(part or 0 for part in parts)
        found["bytes_per_token"] = share(moved, tokens)
        found["no_cache_bytes_per_token"] = share(sized(core.ACCESSES), tokens)
    return found


def tally_masses(masses: npt.NDArray[np.float64] | None, *, lossy: bool = False) -> Metrics:
    """Turn masses (..., NUM_MASSES) into shares of all true weight.

    Without any, all that was chosen was executed as it was, or a lossy policy did not say.
    """
    names = ("kept_mass", "lowbit_mass", "substituted_mass", "dropped_mass")
    if masses is None:
        usual = (None,) * 4 if lossy else (1.0, 0.0, 0.0, 0.0)
        return dict(zip(names, usual, strict=True))
    whole, *parts = masses.reshape(-1, masses.shape[-1]).sum(axis=0).tolist()
    return {name: part / whole if whole else None for name, part in zip(names, parts, strict=True)}


def tally_host(
    rows: Counters, layer_bytes: Sequence[int] | None, tokens: int | None = None
) -> Metrics:
    """Turn the counters of a host tier, (layers, NUM_COUNTERS), into metrics."""
    found = tally(rows, layer_bytes)
    read = found["bytes_demand"]
    return {
        "host_hits": found["hits"],
        "host_misses": found["misses"],
        "host_hit_rate": found["hit_rate"],
        "bytes_disk": read,
        "disk_bytes_per_token": None if tokens is None else share(read, tokens),
    }


def by_phase(
    counters: Counters,
    layer_bytes: Sequence[int] | None,
    low_share: float = 1.0,
    masses: npt.NDArray[np.float64] | None = None,
) -> dict[str, Metrics]:
    """Tally (phases, layers, NUM_COUNTERS) for each phase that occurs."""
    return {
        name: tally(counters[phase], layer_bytes, low_share=low_share)
        | tally_masses(None if masses is None else masses[phase])
        for phase, name in PHASES.items()
        if counters[phase, :, core.ACCESSES].any()
    }


def by_layer(
    counters: Counters,
    layer_bytes: Sequence[int] | None,
    low_share: float = 1.0,
    masses: npt.NDArray[np.float64] | None = None,
) -> dict[str, list[Value]]:
    """Tally (phases, layers, NUM_COUNTERS) for each layer: metric, then one value a layer."""
    rows = counters.sum(axis=0)
    layers = [
        tally(
            rows[layer : layer + 1],
            layer_bytes and layer_bytes[layer : layer + 1],
            low_share=low_share,
        )
        | tally_masses(None if masses is None else masses[:, layer])
        for layer in range(len(rows))
    ]
    return {name: [layer[name] for layer in layers] for name in layers[0]}


def check(counters: Counters) -> None:
    """Raise AccountingError where the counters of a run contradict each other."""
    if (counters < 0).any():
        raise AccountingError(f"a counter is negative: {counters.min()}")
    kinds = (
        core.REUSE_HITS,
        core.PREFETCH_HITS,
        core.LATE_HITS,
        core.COMPULSORY_MISSES,
        core.COLLISION_MISSES,
        core.CAPACITY_MISSES,
    )
    served = counters[..., kinds].sum(axis=-1)
    asked = counters[..., core.ACCESSES]
    if (served != asked).any():
        phase, layer = np.argwhere(served != asked)[0].tolist()
        raise AccountingError(
            f"phase {phase}, layer {layer}: {int(asked[phase, layer])} accesses, but hits, late "
            f"hits and misses are {int(served[phase, layer])}"
        )
    if (counters[..., core.TOKEN_HITS] > counters[..., core.TOKEN_ACCESSES]).any():
        raise AccountingError("more tokens hit than were asked for")
    answered = counters[..., [core.LOWBIT_FETCHES, *UNMOVED]].sum(axis=-1)
    if (answered > counters[..., MISSES].sum(axis=-1)).any():
        raise AccountingError("more misses were answered than there were")
    total = counters.sum(axis=(0, 1))
    ended = (core.PREFETCH_HITS, core.LATE_HITS, core.PREFETCH_WASTED, core.PREFETCH_CANCELLED)
    excess = int(total[list(ended)].sum() - total[core.PREFETCH_ISSUED])
    if excess != 0:
        issued = int(total[core.PREFETCH_ISSUED])
        raise AccountingError(
            f"{issued} prefetches were issued, but {issued + excess} ended: as useful, late, "
            "wasted or cancelled"
        )


def check_host(counters: Counters, host: Counters | None) -> None:
    """Raise AccountingError where a run without warm-up did not ask its host once a transfer."""
    if host is None:
        return
    check(host)
    total = counters.sum(axis=(0, 1))
    unmoved = total[[core.SUBSTITUTED, core.DROPPED, core.PREFETCH_CANCELLED]].sum()
    moved = int(total[[*MISSES, core.PREFETCH_ISSUED]].sum() - unmoved)
    asked = int(host[..., core.ACCESSES].sum())
    if moved != asked:
        raise AccountingError(f"{moved} transfers, but the host was asked for {asked}")


def less(whole: int | None, part: int | None) -> int | None:
    """Return whole - part; None where they are not known."""
    return None if whole is None or part is None else whole - part


def share(part: Any, whole: int) -> float | None:
    """Return part / whole, None where the part is unknown or the whole is nothing."""
    return None if part is None or whole == 0 else float(part / whole)
