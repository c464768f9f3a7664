"""How fast the replay is, beside libcachesim, in one run.

Sequential mode is compared with libcachesim's own processing loop (`cache.process_trace` over its
in-memory oracleGeneral reader; the trace file is written before the clock starts). Ours is the
whole `replay` of a loaded trace: events, next uses for Belady, rules and decision digest. Both are
timed as the best of several alternating repetitions, in processor seconds of one thread; hit
counts must be equal. Event-atomic mode is then timed for every registered eviction policy, a policy
of ordinary Python objects, and the timed simulation with a prefetcher.

    python benchmarks/replay_speed.py TRACE.npz [--repeat 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from specmd.core.state import ACCESSES, PREFETCH_HITS, REUSE_HITS
from specmd.hardware.profile import load_profile
from specmd.policy.registry import add_plugin, entries
from specmd.runs.options import RunConfig
from specmd.simulation.costs import coefficients
from specmd.simulation.replay import replay
from specmd.trace import Trace, import_trace, load, slice_tokens

SHARES = (0.05, 0.2, 0.6)
SEQUENTIAL = {
    "lru": "LRU",
    "fifo": "FIFO",
    "sieve": "Sieve",
    "lfu:resident=true": "LFU",
    "arc": "ARC",
    "belady": "Belady",
}
ORACLE_RECORD = np.dtype([("time", "<u4"), ("key", "<u8"), ("bytes", "<u4"), ("next", "<i8")])


def open_trace(path: Path) -> Trace:
    """Load a SpecMD trace, or import a top-k npz."""
    with np.load(path, allow_pickle=False) as archive:
        native = "header" in archive.files
        experts = None if native else 1 + int(archive["expert_ids"].max())
    if native:
        return load(path)
    assert experts is not None
    return import_trace(path, num_experts=experts, expert_bytes=1 << 20)


def write_oracle(trace: Trace, path: Path) -> None:
    """Write the accesses of a batch-1 trace in libcachesim's oracleGeneral form."""
    layers, experts = trace.header.num_layers, trace.header.num_experts
    keys = trace.expert_ids.astype(np.int64) + np.arange(layers)[:, None] * experts
    keys = keys.reshape(-1)
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    upcoming = np.full(len(keys), -1, np.int64)
    upcoming[order[:-1][same]] = order[1:][same]
    records = np.zeros(len(keys), ORACLE_RECORD)
    records["time"] = np.arange(len(keys))
    records["key"], records["bytes"], records["next"] = keys + 1, 1, upcoming
    records.tofile(path)


def best_of(repeat: int, *runs: Callable[[], Any]) -> list[tuple[float, Any]]:
    """Run the alternatives in turn; the least processor seconds of each, and its last result."""
    least = [float("inf")] * len(runs)
    last: list[Any] = [None] * len(runs)
    for _ in range(repeat):
        for i, run in enumerate(runs):
            start = time.process_time()
            last[i] = run()
            least[i] = min(least[i], time.process_time() - start)
    return list(zip(least, last, strict=True))


def beside_libcachesim(trace: Trace, repeat: int) -> list[dict[str, Any]]:
    """Sequential mode against libcachesim; raises if the hit counts differ."""
    import libcachesim

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.oracleGeneral.bin"
        write_oracle(trace, file)
        accesses = trace.expert_ids.size
        for name, theirs in SEQUENTIAL.items():
            for share in SHARES:
                config = configure(trace, share, evict=name, sequential=True)

                def peer(theirs: str = theirs, slots: int = config.capacity_slots) -> int:
                    reader = libcachesim.TraceReader(
                        str(file),
                        libcachesim.TraceType.ORACLE_GENERAL_TRACE,
                        libcachesim.ReaderInitParam(ignore_obj_size=True),
                    )
                    cache = getattr(libcachesim, theirs)(cache_size=slots)
                    return round(accesses * (1 - cache.process_trace(reader)[0]))

                def ours(config: RunConfig = config) -> int:
                    return hits(replay(trace, config).counters)

                replay(slice_tokens(trace, 0, 64), config)  # compiled outside the measurement
                (their_s, their_hits), (our_s, our_hits) = best_of(repeat, peer, ours)
                if their_hits != our_hits:
                    raise SystemExit(f"{name}: {our_hits} hits here, {their_hits} in libcachesim")
                rows.append(
                    {
                        "policy": name,
                        "mode": "sequential",
                        "share": share,
                        "slots": config.capacity_slots,
                        "hits": our_hits,
                        "m_accesses_per_s": accesses / our_s / 1e6,
                        "libcachesim_m_accesses_per_s": accesses / their_s / 1e6,
                        "ratio": their_s / our_s,
                    }
                )
                say(rows[-1])
    return rows


def atomic(trace: Trace, repeat: int) -> list[dict[str, Any]]:
    """Event-atomic mode of every registered eviction policy."""
    rows = []
    for entry in entries("evict"):
        for share in SHARES:
            config = configure(trace, share, evict=entry.name)
            training = trace if "training" in entry.needs else None
            replay(slice_tokens(trace, 0, 64), config, training=training)
            rows.append(measure(trace, config, repeat, share, training=training))
    return rows


def in_python(trace: Trace) -> list[dict[str, Any]]:
    """Time a policy of ordinary Python objects, on the first 5,000 tokens."""
    add_plugin(Path(__file__).parent / "python_lru.py")
    part = slice_tokens(trace, 0, 5000)
    rows = []
    for share in SHARES:
        rows.append(measure(part, configure(part, share, evict="python_lru"), 1, share))
    return rows


def timed(trace: Trace, repeat: int) -> list[dict[str, Any]]:
    """Time the timed simulation, with an oracle and the previous token as prefetchers."""
    costs = coefficients(load_profile("rtx4090"), None, trace.header.expert_bytes or 1 << 20)
    rows = []
    for prefetch in ("prev_token", "oracle"):
        for share in SHARES:
            config = configure(trace, share, evict="least_stale", prefetch=prefetch)
            config = config.model_copy(update={"schedule": "guard"})
            replay(slice_tokens(trace, 0, 64), config, costs=costs)
            rows.append(measure(trace, config, repeat, share, costs=costs))
    return rows


def configure(trace: Trace, share: float, **options: Any) -> RunConfig:
    """Build the configuration for a share of all experts."""
    slots = int(share * trace.header.num_layers * trace.header.num_experts)
    return RunConfig(capacity=str(slots), capacity_slots=slots, **options)


def measure(
    trace: Trace, config: RunConfig, repeat: int, share: float, **options: Any
) -> dict[str, Any]:
    """Time one configuration."""
    ((seconds, outcome),) = best_of(repeat, lambda: replay(trace, config, **options))
    row = {
        "policy": config.evict + (f" + {config.prefetch}" if config.prefetch != "none" else ""),
        "mode": "timed" if "costs" in options else "event-atomic",
        "share": share,
        "slots": config.capacity_slots,
        "hits": hits(outcome.counters),
        "m_accesses_per_s": int(outcome.counters[..., ACCESSES].sum()) / seconds / 1e6,
    }
    say(row)
    return row


def hits(counters: Any) -> int:
    """Count the hits of an outcome."""
    return int(counters[..., REUSE_HITS].sum() + counters[..., PREFETCH_HITS].sum())


def say(row: dict[str, Any]) -> None:
    """Print a row as it comes."""
    ratio = f"{row['ratio']:6.2f} x libcachesim" if "ratio" in row else ""
    print(
        f"{row['mode']:13s} {row['policy']:28s} {row['slots']:5d} slots "
        f"{row['m_accesses_per_s']:8.2f} M accesses/s {ratio}",
        file=sys.stderr,
        flush=True,
    )


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("trace", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=["sequential", "atomic", "python", "timed"])
    args = parser.parse_args()
    trace = open_trace(args.trace)
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "sequential": lambda: beside_libcachesim(trace, args.repeat),
        "atomic": lambda: atomic(trace, args.repeat),
        "python": lambda: in_python(trace),
        "timed": lambda: timed(trace, args.repeat),
    }
    rows = [row for name, part in parts.items() if args.only in (None, name) for row in part()]
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
