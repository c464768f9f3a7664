"""Runs for a report, made up: two devices, measured ones, what was skipped, counts by expert."""

import numpy as np
from made_up_runs import make_run

from specmd.runs.details import Details
from specmd.runs.metrics import PARTS

DEVICES = {"t4": 1.0, "h100_sxm": 0.3}
MISSES = {"lru": 600, "lfu": 450, "lfru": 400, "belady": 200}
SLOTS = (51, 102, 205, 410)


def timed(run, scale=1.0, order=0):
    """A run with all the times a report reads; `order` makes devices disagree."""
    missed = run.metrics["misses"]
    parts = {"compute": 0.002, "demand_stall": missed * 1e-5, "overhead": 0.0004 + order * 1e-3}
    parts = {name: scale * seconds for name, seconds in parts.items()}
    tpot = sum(parts.values())
    whole = {f"tpot_{name}_s": parts.get(name, 0.0) for name in PARTS} | {"tpot_s": tpot}
    whole |= {f"ttft_{name}_s": 3 * parts.get(name, 0.0) for name in PARTS} | {"ttft_s": 3 * tpot}
    whole |= {"tokens_per_s": 1 / tpot, "stall_share": parts["demand_stall"] / tpot}
    whole |= {"over_roofline": 1 + missed / 1000, "bytes_per_token": missed * 1e5}
    return run.model_copy(update={"metrics": run.metrics | whole})


def simulated(evict, slots, profile, **config):
    misses = max(1, round(MISSES[evict] * (1 - slots / 500)))
    run = make_run(evict, slots, misses, profile, **config)
    order = int(evict == "lfru" and profile == "h100_sxm")
    label = {"label": f"simulated ({profile})"}
    return timed(run.model_copy(update=label), DEVICES.get(profile, 1.0), order)


def measured(evict, slots):
    run = make_run(evict, slots, round(MISSES[evict] * (1 - slots / 500)), bounds=False)
    about = {"source": "measured", "label": "measured (a CPU)", "id": run.id[:-4] + "beef"}
    return timed(run.model_copy(update=about), 4.0)


def report_runs():
    """Runs on two devices and measured, and two that have no result."""
    found = [
        simulated(evict, slots, profile)
        for profile in DEVICES
        for slots in SLOTS
        for evict in MISSES
    ]
    found += [simulated("lru", slots, "t4", prefetch="prev_token") for slots in SLOTS]
    found += [measured(evict, slots) for slots in SLOTS for evict in ("lru", "lfu")]
    reason = "needs lookahead scores: prefetch next_gate </script><b>"
    found += [
        make_run("lru", 51, profile="t4", prefetch="next_gate", status="skipped", reason=reason)
    ]
    found += [
        make_run("lfu", 51, profile="t4", seed=9, status="failed", reason="the disk was full")
    ]
    return [run.with_details(details(run)) if run.status == "ok" else run for run in found]


def details(run):
    """Counts of 16 layers of 64 experts and the parts of one step, different for each run."""
    drawn = np.random.default_rng(int(run.id[:8], 16))
    asked = np.arange(1024).reshape(16, 64) % 7
    missed = drawn.integers(0, asked + 1)
    none, unknown = np.zeros_like(asked), np.zeros(0)
    step = drawn.random((16, len(PARTS))) * 1e-3
    counts = {"asked": asked, "missed": missed, "late": none, "prefetched": none}
    requests = ("ttft_s", "tpot_s", "decode_steps", "accesses", "misses")
    of_requests = {f"request_{name}": unknown for name in requests}
    return Details(**counts, **of_requests, step=np.array([7]), step_parts_s=step)
