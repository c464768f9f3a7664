"""Whether copies hide behind computing, as `specmd.measurement.overlap` measures it.

    python benchmarks/live_overlap.py

Prints a card and one JSON line; exit code 1 if the limits are not met.
"""

from __future__ import annotations

import argparse
import json
import os

import torch

from specmd.measurement.overlap import BLOCKING_LIMIT, LARGER_LEG_LIMIT, WORKING, measure_overlap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=0.9, help="copying over computing")
    parser.add_argument("--batch", type=int, default=24, help="equal rows")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of computing")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = measure_overlap(link="cpu", **vars(args))
    print(
        f"measured, cpu link throttled to {found.bytes_per_s / 1e9:.2f} GB/s, {args.threads} "
        f"compute thread(s), {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"all resident: {found.compute_s * 1e3:.2f} ms a step"
    )
    print("prefetch           miss     step (ms)  copy (ms)  stall (ms)  /larger leg  /blocking")
    for row in found.rows:
        stall = row["demand_stall_step_s"] + row["late_stall_step_s"]
        print(
            f"{row['prefetch']:<18} {row['miss']:<8} {row['step_s'] * 1e3:>9.2f} "
            f"{row['busy_step_s'] * 1e3:>10.2f} {stall * 1e3:>11.2f} "
            f"{row['over_larger_leg']:>12.3f} {row['over_blocking']:>10.3f}"
        )
    card = {
        "benchmark": "live_overlap",
        "over_larger_leg": round(found.rows[WORKING]["over_larger_leg"], 4),
        "over_larger_leg_limit": LARGER_LEG_LIMIT,
        "over_blocking": round(found.rows[WORKING]["over_blocking"], 4),
        "over_blocking_limit": BLOCKING_LIMIT,
        "met": found.met,
        "compute_step_s": round(found.compute_s, 6),
        "throttle_bytes_per_s": round(found.bytes_per_s),
        "rows": found.rows,
    }
    print(json.dumps(card))
    raise SystemExit(0 if found.met else 1)


if __name__ == "__main__":
    main()
