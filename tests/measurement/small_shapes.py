"""Small shapes, and traces for them, that the tests of trace-driven live runs share."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from specmd import live as engine
from specmd.hardware.shape import ModelShape
from specmd.trace import DECODE, PREFILL, Trace, build_trace, load

torch.set_num_threads(1)

LAYERS, EXPERTS, TOP_K = 8, 16, 4
TRACES = Path(__file__).parents[2] / "traces"
TABLES: dict[str, dict[str, Any]] = {
    "olmoe": {
        "model_type": "olmoe",
        "sizes": {"num_experts": "experts", "intermediate_size": "expert_intermediate"},
    },
    "mixtral": {
        "model_type": "mixtral",
        "sizes": {"num_local_experts": "experts", "intermediate_size": "expert_intermediate"},
    },
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        "sizes": {
            "num_experts": "experts",
            "moe_intermediate_size": "expert_intermediate",
            "head_dim": "qk_head_dim",
        },
    },
    "deepseek_v2": {
        "model_type": "deepseek_v2",
        "sizes": {
            "n_routed_experts": "experts",
            "n_shared_experts": "shared_experts",
            "moe_intermediate_size": "expert_intermediate",
            "intermediate_size": "dense_intermediate",
            "v_head_dim": "v_head_dim",
        },
        "config": {
            "first_k_dense_replace": 1,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
        },
        "unset": ["q_lora_rank"],
    },
    "gpt_oss": {
        "model_type": "gpt_oss",
        "sizes": {
            "num_local_experts": "experts",
            "intermediate_size": "expert_intermediate",
            "head_dim": "qk_head_dim",
        },
        "config": {"sliding_window": 16},
    },
}
# attention + norm parameters of a layer: 4 heads of 8 over hidden 32
ATTENTION = {
    "olmoe": 4 * 32 * 32 + 2 * 32,
    "mixtral": 4 * 32 * 32,
    "qwen3_moe": 4 * 32 * 32 + 2 * 8,
    "deepseek_v2": 32 * 64 + 32 * 24 + 16 * 64 + 32 * 32 + 16,
    "gpt_oss": 4 * (32 * 32 + 32) + 4,
}


def small_shape(family: str = "olmoe", **changes: Any) -> ModelShape:
    """A shape of 8 MoE layers of 16 experts, top-4, hidden 32."""
    deep, biases = family == "deepseek_v2", 0 if family != "gpt_oss" else 2 * 16 + 32
    fields: dict[str, Any] = {
        "schema": 1,
        "name": "small",
        "title": "small",
        "sources": ["made up"],
        "layers": LAYERS + deep,
        "moe_layers": LAYERS,
        "hidden": 32,
        "vocab": 2048,
        "experts": EXPERTS,
        "top_k": TOP_K,
        "expert_intermediate": 16,
        "expert_bias_parameters": biases,
        "expert_weight_bits": 16,
        "expert_bytes": (3 * 32 * 16 + biases) * 2,
        "shared_experts": 2 if deep else 0,
        "shared_intermediate": 16 if deep else 0,
        "dense_intermediate": 48 if deep else 0,
        "heads": 4,
        "kv_heads": 4,
        "qk_head_dim": 16 if deep else 8,
        "v_head_dim": 8,
        "kv_bytes_per_token": 128,
        "attention_parameters": ATTENTION[family],
        "norm_parameters": 64,
        "router_parameters": 32 * EXPERTS + (EXPERTS if family == "gpt_oss" else 0),
        "published_parameters": 1,
        "published_source": "none, it is made up",
        "transformers": TABLES[family],
    }
    return ModelShape.model_validate(fields | changes)


@cache
def shipped(name: str, tokens: int) -> Trace:
    """The first tokens of a shipped trace."""
    from specmd.trace import slice_tokens

    return slice_tokens(load(TRACES / f"{name}.npz"), 0, tokens)


@cache
def mixed(
    seed: int = 0,
    *,
    depth: int = 2,
    interleaved: bool = False,
    single: bool = False,
    full: bool = False,
) -> Trace:
    """Steps as a server with chunked prefill makes them: decodes beside a chunk of a prompt.

    Args:
        seed: of all choices.
        depth: of the lookahead scores, 0 for none.
        interleaved: put the tokens of a step in random order.
        single: weights in float32 instead of float16.
        full: also logits, and lookahead scores of re-normalised states.

    """
    rng = np.random.default_rng(seed)
    prompts, answers, chunk = [5, 11, 3, 9, 1], [4, 6, 3, 5, 2], 4
    left, steps = [[p, a] for p, a in zip(prompts, answers, strict=True)], []
    while any(p or a for p, a in left):
        step: list[tuple[int, int]] = []
        for request, (prompt, answer) in enumerate(left):
            if prompt == 0 and answer:
                step.append((request, DECODE))
                left[request][1] -= 1
        waiting = [r for r, (prompt, _) in enumerate(left) if prompt]
        for request in waiting[:2]:
            taken = min(chunk, left[request][0])
            step += [(request, PREFILL)] * taken
            left[request][0] -= taken
        if interleaved:
            step = [step[i] for i in rng.permutation(len(step))]
        steps.append(step)
    request, phase = np.array([pair for step in steps for pair in step]).T
    tokens = len(request)
    # Skewed, so that there is something to keep.
    score = rng.gumbel(size=(tokens, LAYERS, EXPERTS)) + 2 * rng.normal(size=(LAYERS, EXPERTS))
    ids = np.argsort(-score, axis=-1)[..., :TOP_K]
    raw = np.sort(rng.random((tokens, LAYERS, TOP_K)), axis=-1)[..., ::-1]
    lookahead = rng.normal(size=(tokens, LAYERS, depth, EXPERTS))
    for layer in range(LAYERS):
        lookahead[:, layer, max(0, LAYERS - 1 - layer) :] = np.nan
    known = {"logits": score, "lookahead_renormalised": lookahead + 1} if full else {}
    return build_trace(
        ids,
        num_experts=EXPERTS,
        step=np.repeat(np.arange(len(steps)), [len(step) for step in steps]),
        request=request,
        phase=phase,
        weights=raw.astype(np.float32 if single else np.float16),
        lookahead=lookahead if depth else None,
        prompt_lengths=prompts,
        header={"kind": "synthetic"},
        **known,
    )


def offload(model: Any, *args: Any, **options: Any) -> engine.Offload:
    """`specmd.offload` on the cpu link unless another is asked for, whatever this machine has."""
    return engine.offload(model, *args, **({"link": "cpu"} | options))
