"""What the engine costs where it moves nothing: all experts resident, against the bare expert loop.

    python benchmarks/live_overhead.py

The loop makes the same products, grouped and summed the same way, from the model's own weights, but
without slots, policies, leases or routing log: what is left is the price of deciding. Two copies of
one model run the same decode steps in one process and alternate step by step, so that load from
elsewhere falls on both alike; the figure is the median over runs of the ratio of the two median
step times. Of OLMoE's true expert shape (hidden 2048, expert 1024, top-8) two layers of 16 experts
stand for 16 of 64: cost is per layer and chosen expert. The tiny model is the hardest case there
is: an expert of it takes microseconds. The budget is 10 %. Prints a card and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import transformers
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from specmd.live import offload
from specmd.live.experts import Grouping, sum_in_order, weighted_product
from specmd.models.moe import find_moe
from specmd.models.passes import cache_argument
from specmd.models.tiny import load_tiny

BUDGET = 1.10


def true_shape() -> Any:
    """Make two layers of OLMoE-1B-7B: random weights, fewer words, a quarter of its experts."""
    torch.manual_seed(0)
    config = transformers.OlmoeConfig(
        vocab_size=256,
        hidden_size=2048,
        intermediate_size=1024,
        num_hidden_layers=2,
        num_attention_heads=16,
        num_key_value_heads=16,
        num_experts=16,
        num_experts_per_tok=8,
        max_position_embeddings=256,
        eos_token_id=None,
        pad_token_id=1,
    )
    return transformers.OlmoeForCausalLM(config).eval()


@contextmanager
def bare_loop(model: Any) -> Iterator[None]:
    """Run the experts of `model` by a loop over those that were chosen, and nothing else."""
    moe = find_moe(model)
    weights = {
        id(layer.experts): [
            {name: tensor[expert] for name, tensor in layer.experts.named_parameters()}
            for expert in range(moe.num_experts)
        ]
        for layer in moe.layers
    }

    def forward(experts: Any, hidden: Any, ids: Any, router: Any) -> Any:
        counts = np.bincount(ids.numpy().reshape(-1), minlength=moe.num_experts)
        group = Grouping(ids, router, counts.tolist(), None)
        own = weights[id(experts)]
        products = {
            expert: weighted_product(experts, own[expert], hidden, group, expert)
            for expert in np.flatnonzero(counts).tolist()
        }
        return sum_in_order(hidden, products, group)

    before = model.config._experts_implementation
    ALL_EXPERTS_FUNCTIONS["bare_loop"] = forward
    model.config._experts_implementation = "bare_loop"
    try:
        yield
    finally:
        model.config._experts_implementation = before
        ALL_EXPERTS_FUNCTIONS.pop("bare_loop")


def step_s(models: tuple[Any, ...], batch: int, steps: int) -> list[float]:
    """Median seconds of one decode step of each model; every call feeds the same tokens."""
    seeded = torch.Generator().manual_seed(1)
    vocab = models[0].config.vocab_size
    prompt = torch.randint(3, vocab, (batch, 8), generator=seeded)
    fed = torch.randint(3, vocab, (steps, batch, 1), generator=seeded)
    name = cache_argument(models[0].model)
    pasts = [model(prompt, use_cache=True)[name] for model in models]
    times: list[list[float]] = [[] for _ in models]
    order = list(range(len(models)))
    for tokens in fed:
        for which in order:
            start = time.perf_counter()
            models[which](tokens, **{name: pasts[which]}, use_cache=True)
            times[which].append(time.perf_counter() - start)
        order.reverse()  # who comes first finds other things in the processor's caches
    return [statistics.median(each) for each in times]


def measure(
    name: str, build: Callable[[], Any], batches: tuple[int, ...], pairs: int, steps: int
) -> list[dict[str, Any]]:
    """Run bare loop and engine side by side, on two copies of one model."""
    rows = []
    plain, cached = build(), build()
    threads = torch.get_num_threads()
    with (
        bare_loop(plain),
        offload(cached, "lru", capacity="100%", link="cpu", compute_threads=threads),
    ):
        for batch in batches:
            for _ in range(2):  # bring the experts in, compile the policy
                step_s((plain, cached), batch, steps)
            found = [step_s((plain, cached), batch, steps) for _ in range(pairs)]
            ratios = sorted(engine_s / bare_s for bare_s, engine_s in found)
            row = {
                "model": name,
                "batch": batch,
                "bare_step_s": round(statistics.median(pair[0] for pair in found), 6),
                "engine_step_s": round(statistics.median(pair[1] for pair in found), 6),
                "ratio": round(statistics.median(ratios), 4),
                "ratio_min": round(ratios[0], 4),
                "ratio_max": round(ratios[-1], 4),
            }
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=9, help="runs of both for each setting")
    parser.add_argument("--steps", type=int, default=40, help="decode steps of a run")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    with torch.no_grad():
        for name, build, batches in (
            ("tiny", lambda: load_tiny()[0], (1, 8)),
            ("olmoe shape", true_shape, (1, 4)),
        ):
            rows += measure(name, build, batches, args.pairs, args.steps)
    print(f"measured, cpu link, {args.threads} compute thread(s), fp32, all experts resident")
    print("model        batch  bare (ms)  engine (ms)  ratio  (min - max)")
    for row in rows:
        print(
            f"{row['model']:<12} {row['batch']:>5} {row['bare_step_s'] * 1e3:>10.3f} "
            f"{row['engine_step_s'] * 1e3:>12.3f} {row['ratio']:>6.3f}  "
            f"({row['ratio_min']:.3f} - {row['ratio_max']:.3f})"
        )
    worst = max(row["ratio"] for row in rows)
    print(
        json.dumps({"benchmark": "live_overhead", "budget": BUDGET, "worst": worst, "rows": rows})
    )
    raise SystemExit(0 if worst <= BUDGET else 1)


if __name__ == "__main__":
    main()
