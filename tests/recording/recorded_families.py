"""Tiny random-weight models of the real classes of every supported family."""

from __future__ import annotations

from typing import Any

import small_models
from small_models import GPT_OSS, GREEDY, LOCAL, MLA, OLMOE, QWEN, build_random

SIZES: dict[str, Any] = small_models.SIZES | {"num_hidden_layers": 4, "eos_token_id": 2}

# family -> (class prefix, configuration, MoE layers, has output_router_logits)
FAMILIES: dict[str, tuple[str, dict[str, Any], int, bool]] = {
    "olmoe": ("Olmoe", OLMOE, 4, True),
    "mixtral": ("Mixtral", LOCAL, 4, True),
    "qwen2_moe": (
        "Qwen2Moe",
        QWEN | {"shared_expert_intermediate_size": 24, "decoder_sparse_step": 2},
        2,
        True,
    ),
    "qwen3_moe": ("Qwen3Moe", QWEN | {"head_dim": 8, "norm_topk_prob": True}, 4, True),
    "deepseek_v2": ("DeepseekV2", MLA | GREEDY, 3, False),
    "deepseek_v3": ("DeepseekV3", MLA, 3, False),
    "gpt_oss": ("GptOss", GPT_OSS, 4, True),
    "phimoe": ("Phimoe", LOCAL | {"num_experts_per_tok": 2}, 4, True),
    "granitemoe": ("GraniteMoe", LOCAL, 4, True),
}


def build(family: str, seed: int = 0) -> Any:
    """A random model of `family` in fp32; also norms and biases are random, as in a trained one."""
    prefix, extra, _, _ = FAMILIES[family]
    return build_random(prefix, SIZES | extra, seed)
