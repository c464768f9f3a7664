"""A response of vLLM to a ranked table: a made-up answer of 94 x 128 experts, timed by parts.

    python benchmarks/response_to_table.py [--tokens N] [--profile NAME] [--dir FOLDER]

The response is JSON with ``prompt_routed_experts`` and ``routed_experts``, one object a request, as
a client that asks for several requests collects them; routing is made up (`specmd.trace.synthetic`:
a popularity law and reuse of the token before). `specmd import` and `specmd simulate` run as
programs of their own: six policies at four capacities, with bounds, first with an empty cache of
compiled kernels, then with that of the first go. Prints the table, policies by rank, the
seconds of each part, and a JSON line. Nearly all of the first go is compiling: a kernel a
policy, twice as long with a clock.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAYERS, EXPERTS, TOP_K = 94, 128, 8
EXPERT_BYTES = 3 * 4096 * 1536 * 2
"""Qwen3-235B-A22B in bf16: hidden 4096, expert 1536 (config.json of Qwen/Qwen3-235B-A22B)."""
REQUESTS = 4
POLICIES = ("lru", "lfu", "least_stale", "sieve", "slru", "arc")
CAPACITIES = ("5%", "10%", "20%", "40%")


def write_response(path: Path, tokens: int) -> None:
    """Write REQUESTS responses of `tokens` tokens together, 60 % of them the prompts'."""
    from specmd.trace import synthetic

    each = tokens // REQUESTS
    prompt = each * 6 // 10
    trace = synthetic(
        num_layers=LAYERS,
        num_experts=EXPERTS,
        top_k=TOP_K,
        num_requests=REQUESTS,
        prompt_length=prompt,
        decode_length=each - prompt,
        seed=20261125,
    )
    responses = []
    for number in range(REQUESTS):
        ids = trace.expert_ids[trace.request == number]
        responses.append(
            {
                "id": f"cmpl-{number}",
                "object": "text_completion",
                "model": "Qwen3-235B-A22B",
                "prompt_routed_experts": ids[:prompt].tolist(),
                "choices": [
                    {
                        "index": 0,
                        "text": "",
                        "finish_reason": "length",
                        "routed_experts": ids[prompt:].tolist(),
                    }
                ],
                "usage": {"prompt_tokens": prompt, "completion_tokens": len(ids) - prompt + 1},
            }
        )
    path.write_text(json.dumps(responses))


def processor_s() -> float:
    """Return the processor seconds of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def specmd(*arguments: str, cache: Path, shown: bool = False) -> tuple[float, float]:
    """Run a command; return its seconds on the wall clock, and of the processor."""
    begin, used = time.perf_counter(), processor_s()
    subprocess.run(
        [sys.executable, "-m", "specmd", *arguments],
        env=os.environ | {"SPECMD_CACHE_DIR": str(cache), "COLUMNS": "200"},
        stdout=None if shown else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - begin, processor_s() - used


def main() -> None:
    parser = argparse.ArgumentParser(description="A response of vLLM to a ranked table.")
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--profile", help="simulate with the clock of this profile")
    parser.add_argument("--dir", type=Path, help="folder for the files")
    options = parser.parse_args()
    found: dict[str, float] = {"tokens": options.tokens}
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        response, trace = Path(folder) / "response.json", Path(folder) / "trace.npz"
        cache = Path(folder) / "cache"
        write_response(response, options.tokens)
        found["bytes"] = response.stat().st_size
        simulate = ["simulate", str(trace), "--rank", "tpot_s" if options.profile else "hit_rate"]
        simulate += [word for policy in POLICIES for word in ("-e", policy)]
        simulate += [word for capacity in CAPACITIES for word in ("-c", capacity)]
        if options.profile:
            simulate += ["--profile", options.profile]
        read = ["import", str(response), str(trace), "--experts", str(EXPERTS)]
        read += ["--model", "Qwen3-235B-A22B", "--expert-bytes", str(EXPERT_BYTES)]
        for state in ("empty", "warm"):
            for part, words in (("import", read), ("simulate", simulate)):
                wall, used = specmd(
                    *words, cache=cache, shown=(part, state) == ("simulate", "empty")
                )
                found |= {f"{part}_{state}_s": wall, f"{part}_{state}_processor_s": used}
    print(
        f"{options.tokens:,} tokens x {LAYERS} layers x {TOP_K} of {EXPERTS} experts, "
        f"{found['bytes'] / 1e6:.1f} MB of JSON; {len(POLICIES)} policies x "
        f"{len(CAPACITIES)} capacities, {options.profile or 'no clock'}, {os.cpu_count()} cores"
    )
    for state in ("empty", "warm"):
        parts = [found[f"{part}_{state}_s"] for part in ("import", "simulate")]
        used = sum(found[f"{part}_{state}_processor_s"] for part in ("import", "simulate"))
        print(
            f"  kernel cache {state:6} import {parts[0]:6.1f} s   simulate {parts[1]:6.1f} s   "
            f"together {sum(parts):6.1f} s, {used:5.1f} s of a processor"
        )
    print(json.dumps({"benchmark": "response_to_table", "profile": options.profile, **found}))


if __name__ == "__main__":
    main()
