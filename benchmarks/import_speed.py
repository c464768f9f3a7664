"""Import made-up recordings in every text form; prints rows a second and one JSON line.

    python benchmarks/import_speed.py [--rows N] [--goes N] [--dir FOLDER] [FORM ...]

A row is one token in one layer: 8 experts of 128, and router weights wherever the form has them;
forms of one line a routed expert are also counted in lines. The time is of the processor, from the
closed file to the checked trace, the best of some goes: what else runs on the machine counts less.
Beside it, for JSON lines, how many times as fast as Python's json alone that is.
"""

from __future__ import annotations

import argparse
import base64
import gc
import io
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

LAYERS, EXPERTS, TOP_K = 48, 128, 8


def routing(tokens: int) -> tuple[Any, Any]:
    """Return made-up choices and weights (tokens, LAYERS, TOP_K), the best first."""
    rng = np.random.default_rng(0)
    scores = rng.random((tokens, LAYERS, EXPERTS), dtype=np.float32)
    ids = np.argpartition(scores, TOP_K, axis=2)[:, :, :TOP_K]
    weights = np.sort(rng.random(ids.shape), axis=2)[:, :, ::-1]
    return ids, np.round(weights / weights.sum(axis=2, keepdims=True), 6)


def each(ids: Any, weights: Any) -> Iterator[tuple[int, int, list[int], list[float]]]:
    """Yield token, layer, experts, weights."""
    for token, (chosen, gates) in enumerate(zip(ids.tolist(), weights.tolist(), strict=True)):
        for layer, row in enumerate(zip(chosen, gates, strict=True)):
            yield token, layer, *row


def as_jsonl(ids: Any, weights: Any) -> Iterator[dict[str, Any]]:
    for token, layer, experts, gates in each(ids, weights):
        yield {
            "request": 0,
            "step": token,
            "token": token,
            "layer": layer,
            "experts": experts,
            "weights": gates,
        }


def as_whole(ids: Any, weights: Any) -> Iterator[dict[str, Any]]:
    for experts, gates in zip(ids.tolist(), weights.tolist(), strict=True):
        yield {"experts": experts, "weights": gates}


def as_vllm_log(ids: Any, weights: Any) -> Iterator[dict[str, Any]]:
    yield {"type": "meta", "model_id": "made-up", "layers_logged": list(range(LAYERS))}
    for _, layer, experts, gates in each(ids, weights):
        yield {
            "type": "route",
            "req_id": "r0",
            "token_idx": 0,
            "layer": layer,
            "topk_ids": experts,
            "topk_weights": gates,
        }


def as_lattice(ids: Any, weights: Any) -> Iterator[dict[str, Any]]:
    for token, layer, experts, gates in each(ids, weights):
        yield {
            "layer_idx": layer,
            "token_idx": token,
            "selected_ids": experts,
            "gate_weights": gates,
        }


def as_warp(ids: Any, weights: Any) -> Iterator[dict[str, Any]]:
    for number, layers in enumerate(ids.tolist(), 1):
        yield {"tok": number, "layers": layers}


def as_ik_llama(ids: Any, weights: Any) -> Iterator[dict[str, Any]]:
    yield {"type": "meta", "schema": "ik_llama.moe_routing_trace", "version": 1, "model": "m.gguf"}
    yield {"type": "model", "n_layer": LAYERS, "moe_layer_ids": list(range(LAYERS))}
    for token, layer, experts, gates in each(ids, weights):
        chosen = zip(experts, gates, strict=True)
        yield {
            "type": "route",
            "event": token * LAYERS + layer,
            "sequence": 0,
            "batch_index": token,
            "pos": token,
            "layer": layer,
            "n_expert": EXPERTS,
            "input_token_id": 9,
            "selected": [{"rank": r, "expert": e, "weight": w} for r, (e, w) in enumerate(chosen)],
        }
    yield {"type": "end", "complete": True, "routes": ids.shape[0] * LAYERS}


def as_csv(ids: Any, weights: Any) -> Iterator[str]:
    yield "token,layer,experts,weights"
    for token, layer, experts, gates in each(ids, weights):
        yield f"{token},{layer},{' '.join(map(str, experts))},{' '.join(map(str, gates))}"


def as_csv_single(ids: Any, weights: Any) -> Iterator[str]:
    yield "token,layer,expert,weight"
    for token, layer, experts, gates in each(ids, weights):
        for expert, gate in zip(experts, gates, strict=True):
            yield f"{token},{layer},{expert},{gate}"


def as_big_moe(ids: Any, weights: Any) -> Iterator[str]:
    yield "# route_trace v1"
    yield (
        f"# model=m.gguf arch=m n_layer={LAYERS} n_expert={EXPERTS} n_expert_used={TOP_K} more=0"
    )
    for layer in range(LAYERS):
        yield f"# layer={layer} expert_bytes=2654208 dense_bytes=7"
    yield "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes"
    for token, layer, experts, gates in each(ids, weights):
        for slot, (expert, gate) in enumerate(zip(experts, gates, strict=True)):
            yield f"0,1,{token},{layer},{slot},{expert},{gate},0,2654208"


def as_llama_cpp(ids: Any, weights: Any) -> Iterator[str]:
    for _, layer, experts, _ in each(ids, weights):
        for expert in experts:
            yield f"{layer},{expert}"


def as_vllm(ids: Any, weights: Any) -> Iterator[dict[str, Any]]:
    yield {"prompt_routed_experts": ids[:100].tolist(), "choices": [_routed(ids[100:].tolist())]}


def as_vllm_npy(ids: Any, weights: Any) -> Iterator[dict[str, Any]]:
    array = io.BytesIO()
    np.save(array, ids.astype(np.uint8))
    coded = base64.b64encode(array.getvalue()).decode()
    yield {"usage": {"prompt_tokens": 100}, "choices": [_routed(coded)]}


def as_sglang(ids: Any, weights: Any) -> Iterator[dict[str, Any]]:
    coded = base64.b64encode(ids.astype("<i4").tobytes()).decode()
    counts = {"prompt_tokens": 100, "completion_tokens": len(ids) - 99}
    yield {"text": "", "meta_info": counts | _routed(coded)}


def _routed(ids: Any) -> dict[str, Any]:
    return {"routed_experts": ids}


FORMS = {
    "jsonl, a row a line": as_jsonl,
    "jsonl, a token a line": as_whole,
    "vllm layer log": as_vllm_log,
    "lattice": as_lattice,
    "warp": as_warp,
    "ik-llama": as_ik_llama,
    "csv, a row a line": as_csv,
    "csv, an expert a line": as_csv_single,
    "big-moe": as_big_moe,
    "llama-cpp": as_llama_cpp,
    "vllm response": as_vllm,
    "vllm response, npy": as_vllm_npy,
    "sglang response": as_sglang,
}
JSON_LINES = tuple(FORMS)[:6]


def time_json(path: Path) -> float:
    """Return the processor seconds of Python's json for the lines of a file, collector off."""
    lines = path.read_text().splitlines()
    gc.disable()
    begin = time.process_time()
    for line in lines:
        json.loads(line)
    gc.enable()
    return time.process_time() - begin


def main() -> None:
    from specmd.trace import import_trace

    parser = argparse.ArgumentParser(description="Import made-up recordings in every text form.")
    parser.add_argument("forms", nargs="*", metavar="FORM", help=", ".join(FORMS))
    parser.add_argument("--rows", type=int, default=240_000)
    parser.add_argument("--goes", type=int, default=3)
    parser.add_argument("--dir", type=Path, help="folder for the files")
    options = parser.parse_args()
    ids, weights = routing(max(options.rows // LAYERS, 200))
    rows, found = ids.shape[0] * LAYERS, {}
    print(
        f"{rows:,} rows: {ids.shape[0]:,} tokens x {LAYERS} layers x {TOP_K} of {EXPERTS} experts"
    )
    print(f"  {'form':24}{'MB':>6}{'s':>8}{'k rows/s':>10}{'k lines/s':>11}{'x json':>8}")
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        path = Path(folder) / "recording"
        for name in options.forms or FORMS:
            lines = 0
            with path.open("w") as file:
                for line in FORMS[name](ids, weights):
                    file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
                    lines += 1
            seconds = alone = float("inf")
            for _ in range(options.goes):
                begin = time.process_time()
                trace = import_trace(path, num_experts=EXPERTS, top_k=TOP_K)
                seconds = min(seconds, time.process_time() - begin)
                if name in JSON_LINES:
                    alone = min(alone, time_json(path))
            assert (trace.expert_ids == ids).all()
            found[name] = rows / seconds
            print(
                f"  {name:24}{path.stat().st_size / 1e6:6.1f}{seconds:8.2f}"
                f"{rows / seconds / 1e3:10,.0f}{lines / seconds / 1e3:11,.0f}"
                + (f"{alone / seconds:8.1f}" if name in JSON_LINES else ""),
                flush=True,
            )
    print(json.dumps({"benchmark": "import_speed", "rows": rows, "rows_per_s": found}))


if __name__ == "__main__":
    main()
