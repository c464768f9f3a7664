"""How fast the curves of all capacities are, beside runs at each, in one run.

Ours are the whole `curve` of a loaded trace: events, next uses for Belady, depths. Beside it stands
a `replay` at some capacities, whose hits must be the curve's, and libcachesim's LRU and Belady over
the same accesses one by one, whose hits must be those of the sequential curve. libcachesim's Python
package has no profiler of miss ratio curves, so a curve of its is one run for each capacity. All in
processor seconds of one thread, the best of several alternating repetitions.

    python benchmarks/curve_speed.py TRACE.npz [--repeat 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from replay_speed import SHARES, best_of, open_trace, write_oracle

from specmd.core.state import REUSE_HITS
from specmd.runs.options import RunConfig
from specmd.simulation.curves import Rule, curve
from specmd.simulation.replay import replay
from specmd.trace import Trace

RULES: tuple[Rule, ...] = ("lru", "belady", "belady:bypass=true")
THEIRS = {"lru": "LRU", "belady": "Belady"}


def measure(trace: Trace, rule: Rule, repeat: int) -> dict[str, Any]:
    """Time a rule's curve, whole and cut at 20 % of the keys, beside replays; hits must agree."""
    keys = trace.header.num_layers * trace.header.num_experts
    configs = [
        RunConfig(evict=rule, capacity=str(slots), capacity_slots=slots)
        for slots in (int(keys * share) for share in SHARES)
    ]
    cut = keys // 5
    ways = [partial(curve, trace, configs[0], rule), partial(curve, trace, configs[0], rule)]
    ways[1].keywords["depth"] = cut
    replays = [partial(replay, trace, config) for config in configs]
    for way in (*ways, *replays):  # compiled outside the measurement
        way()
    (whole_s, whole), (cut_s, _), *each = best_of(repeat, *ways, *replays)
    for config, (_, outcome) in zip(configs, each, strict=True):
        counted = int(outcome.counters[..., REUSE_HITS].sum())
        if int(whole.hits([config.capacity_slots]).sum()) != counted:
            raise SystemExit(f"{rule} at {config.capacity_slots}: {counted} hits replayed")
    row = {"rule": rule, "curve_s": whole_s, "curve_to_20_percent_s": cut_s}
    return row | {"replay_s": sum(seconds for seconds, _ in each) / len(each)}


def beside_libcachesim(trace: Trace, rule: Rule, repeat: int) -> dict[str, Any]:
    """Time the sequential curve beside one run of libcachesim for a capacity; hits must agree."""
    import libcachesim

    keys = trace.header.num_layers * trace.header.num_experts
    slots = keys // 5
    config = RunConfig(evict=rule, capacity="20%", capacity_slots=slots, sequential=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.oracleGeneral.bin"
        write_oracle(trace, file)

        def peer() -> int:
            reader = libcachesim.TraceReader(
                str(file),
                libcachesim.TraceType.ORACLE_GENERAL_TRACE,
                libcachesim.ReaderInitParam(ignore_obj_size=True),
            )
            cache = getattr(libcachesim, THEIRS[rule])(cache_size=slots)
            return round(trace.expert_ids.size * (1 - cache.process_trace(reader)[0]))

        (their_s, their_hits), (our_s, found) = best_of(
            repeat, peer, partial(curve, trace, config, rule)
        )
    if int(found.hits([slots]).sum()) != their_hits:
        raise SystemExit(f"{rule}: {their_hits} hits in libcachesim")
    return {
        "rule": rule,
        "sequential_curve_s": our_s,
        "libcachesim_one_capacity_s": their_s,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    trace = open_trace(options.trace)
    rows = [measure(trace, rule, options.repeat) for rule in RULES]
    if trace.num_steps == trace.num_tokens:  # batch 1: recorded order is libcachesim's
        rows += [beside_libcachesim(trace, rule, options.repeat) for rule in RULES[:2]]
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    keys = trace.header.num_layers * trace.header.num_experts
    print(f"{trace.expert_ids.size:,} accesses, {keys:,} keys; processor seconds")
    for row in rows:
        print(", ".join(f"{k} {v:.2f}" if isinstance(v, float) else v for k, v in row.items()))


if __name__ == "__main__":
    main()
