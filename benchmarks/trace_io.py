"""Write and load a trace of one million tokens; prints a card and one JSON line.

    python benchmarks/trace_io.py [--tokens N] [--dir FOLDER]

The trace has 16 layers, 8 of 64 experts and fp16 weights: 375 MiB. Loading checks every id and
every weight and compares each array with its CRC. Each part runs in a process of its own, so that
its peak memory is its own; the load is warm, the file having just been written.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

LAYERS, EXPERTS, TOP_K = 16, 64, 8


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def write(path: Path, tokens: int) -> dict[str, float]:
    import numpy as np

    from specmd.trace import build_trace, save

    rng = np.random.default_rng(0)
    first = rng.integers(0, EXPERTS, (tokens, LAYERS, 1), dtype=np.uint8)
    ids = first + np.arange(TOP_K, dtype=np.uint8)
    ids &= EXPERTS - 1
    weights = np.empty((tokens, LAYERS, TOP_K), dtype=np.float16)
    for start in range(0, tokens, 1 << 16):
        part = weights[start : start + (1 << 16)]
        part[:] = rng.random(part.shape, dtype=np.float32)
    trace = build_trace(ids, num_experts=EXPERTS, weights=weights)
    begin = time.perf_counter()
    save(trace, path)
    return {"write_s": time.perf_counter() - begin, "write_peak_bytes": peak_bytes()}


def read(path: Path, tokens: int) -> dict[str, float]:
    from specmd.trace import load

    begin = time.perf_counter()
    trace = load(path)
    seconds = time.perf_counter() - begin
    assert trace.num_tokens == tokens
    arrays = sum(array.nbytes for array in trace.arrays().values())
    return {"load_s": seconds, "load_peak_bytes": peak_bytes(), "array_bytes": arrays}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write and load a large trace.")
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--dir", type=Path, help="folder on the disk to measure")
    options = parser.parse_args()
    found: dict[str, float] = {"tokens": options.tokens}
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        path = Path(folder) / "trace.npz"
        for part in (write, read):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found |= pool.apply(part, (path, options.tokens))
        found["file_bytes"] = path.stat().st_size
    print(f"{options.tokens:,} tokens x {LAYERS} layers x {TOP_K} of {EXPERTS} experts")
    print(f"  file   {found['file_bytes'] / 2**20:8.0f} MiB")
    print(
        f"  write  {found['write_s']:8.2f} s     peak {found['write_peak_bytes'] / 2**20:6.0f} MiB"
    )
    print(f"  load   {found['load_s']:8.2f} s     peak {found['load_peak_bytes'] / 2**20:6.0f} MiB")
    print(json.dumps({"benchmark": "trace_io", **found}))


if __name__ == "__main__":
    main()
