"""The regime of a run: how much one step asks for beside what the cache holds.

Two ratios decide what any policy can do. `r = |U| / layer capacity` says how much of a layer's
share one event fills: near 1 and above, a wide prefill wipes the cache. `C / T`, where T is the
working set of one step (all keys its layers touch), says whether anything can survive until the
next step. A decoder is a cyclic scan: between two uses of a key lie at least the T - |U| keys of
the other layers. So an LRU cache of C <= T - K slots has always evicted a key just before it is
asked for again, and never hits in batch-1 decode; nor does any policy whose order such a scan makes
that of LRU. That is not a bug of the program but the finding that layer-aware policies live from;
the report says so instead of leaving the reader to wonder.
"""

from __future__ import annotations

import numpy as np

from specmd.policy.registry import is_lossy
from specmd.runs.options import RunConfig
from specmd.runs.pools import pools_of
from specmd.runs.run import Metrics, Regime, SizeClass, TraceFacts
from specmd.trace import DECODE, Locality, Trace, TraceHeader

MOSTLY_FULL = 0.75
"""Below this share of its requests in flight, a batch is not what it is called."""
LOOPING_SHARE = 0.1
"""Above this share of looping requests a trace is called repetitive."""


def regime(
    found: Locality, header: TraceHeader, config: RunConfig, training: Trace | None = None
) -> Regime:
    """Set the demand of a trace beside a capacity; percentiles are over all events or steps."""
    layer_capacity = config.capacity_slots / header.num_layers
    decode = found.step_keys_decode or found.step_keys
    return Regime(
        layer_capacity=layer_capacity,
        r_p50=found.event_keys.p50 / layer_capacity,
        r_p95=found.event_keys.p95 / layer_capacity,
        working_set_mean=found.step_keys.mean,
        working_set_p50=found.step_keys.p50,
        working_set_p95=found.step_keys.p95,
        capacity_over_working_set=config.capacity_slots / decode.mean,
        keys_used=found.keys_used,
        keys_total=found.keys_total,
        size_classes=size_classes(header, config, training),
    )


def size_classes(
    header: TraceHeader, config: RunConfig, training: Trace | None = None
) -> tuple[SizeClass, ...]:
    """Count the slots of a run by the size of the experts they hold, smallest first."""
    pools = pools_of(header, config, training=training)
    sizes = header.layer_bytes or (None,) * header.num_layers
    pool_size = dict(zip(pools.of_layer, sizes, strict=True))
    return tuple(
        SizeClass(
            bytes=size,
            experts=sizes.count(size) * header.num_experts,
            slots=sum(slots for pool, slots in enumerate(pools.slots) if pool_size[pool] == size),
        )
        for size in sorted(set(sizes), key=lambda size: size or 0)
    )


def decodes_one_by_one(trace: Trace) -> bool:
    """Say whether the trace has decode steps, and each of them holds a single token."""
    decode = trace.phase == DECODE
    if not decode.any():
        return False
    tokens = np.diff(trace.step_starts)
    return bool((tokens[np.unique(trace.step[decode])] == 1).all())


def no_hits(trace: Trace, config: RunConfig, decode: Metrics) -> str | None:
    """Explain a decode hit rate of zero; `decode` are the counts of decode alone."""
    accesses, used = decode.get("accesses"), decode.get("hits")
    if not accesses or used or decode.get("late_hits") or decode["compulsory_misses"] == accesses:
        return None
    name = f"{config.scope} {config.evict}"
    top_k = trace.header.top_k
    working_set = trace.header.num_layers * top_k
    cliff = config.scope == "global" and config.capacity_slots <= working_set - top_k
    if cliff and decodes_one_by_one(trace):
        return (
            f"{name} with C <= T - K never hits in batch-1 decode (C={config.capacity_slots}, "
            f"T={working_set}, K={top_k}): every key is evicted before its layer comes round again"
        )
    return f"{name} never hits in decode (C={config.capacity_slots}): keys leave before their use"


def no_choice(trace: Trace, config: RunConfig) -> str | None:
    """Say where every event fills its pool, so that nothing is left to choose."""
    top_k, layers = trace.header.top_k, trace.header.num_layers
    pools = layers if config.scope == "layer" else 1
    if (
        config.capacity_slots != pools * top_k
        or config.admission != "forced"
        or config.prefetch != "none"
        or trace.header.ragged
        or not decodes_one_by_one(trace)
    ):
        return None
    pool = "each layer holds" if pools > 1 else "the cache holds"
    return f"{pool} K={top_k} slots, which every decode event fills: no eviction policy can matter"


def cautions(
    trace: Trace,
    config: RunConfig,
    facts: TraceFacts,
    found: Locality,
    metrics: Metrics,
    decode: Metrics | None = None,
) -> list[str]:
    """List what a reader must know before believing the counts of a run; `decode` alone, too."""
    explained = (no_hits(trace, config, decode or {}), no_choice(trace, config))
    warnings = [text for text in explained if text]
    if facts.kind == "synthetic":
        warnings.append("the trace is synthetic: draw no conclusions about models from it")
    if not facts.complete:
        warnings.append("the trace is truncated: its recording or import stopped early")
    if config.capacity_slots >= found.keys_used:
        warnings.append(
            f"the cache holds every key the trace ever uses (C={config.capacity_slots}, "
            f"{found.keys_used} used of {found.keys_total}): no policy can matter"
        )
    if config.warmup > facts.counted_steps:
        warnings.append(
            f"the trace is shorter than its warm-up: {facts.counted_steps} steps are counted after "
            f"{config.warmup} of warm-up"
        )
    compulsory, misses = metrics["compulsory_misses"], metrics["misses"]
    if config.prefetch == "none" and compulsory and misses and 2 * compulsory > misses:
        warnings.append(
            f"{compulsory} of {misses} misses are compulsory: the trace is too short for this "
            "capacity to tell policies apart"
        )
    decoded = int((trace.phase == DECODE).sum())
    if config.batch and decoded:
        in_flight = decoded / len(np.unique(trace.step[trace.phase == DECODE]))
        if in_flight < MOSTLY_FULL * config.batch:
            warnings.append(
                f"on average {in_flight:.1f} of {config.batch} requests are in flight: the others "
                "have ended; a smaller batch, or more requests"
            )
    looping = found.looping_requests
    if looping is not None and looping > LOOPING_SHARE:
        warnings.append(
            f"the text is repetitive: {looping:.0%} of the requests end in a loop, which flatters "
            "every cache"
        )
    if is_lossy(config):
        warnings.append(
            "lossy: other experts are executed than the model chose, and later tokens are taken as "
            "recorded; what that costs in quality is measured live only"
        )
    if facts.expert_bytes is None:
        warnings.append(
            "the trace does not say how large an expert is: bytes are null; import it with "
            "--expert-bytes"
        )
    return warnings
