"""Tiny random-weight models of the real classes of every supported family."""

from __future__ import annotations

from typing import Any

import torch

torch.set_num_threads(1)

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}
MLA: dict[str, Any] = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
    "first_k_dense_replace": 1,
    "n_shared_experts": 2,
    "moe_intermediate_size": 16,
    "intermediate_size": 48,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
}
QWEN: dict[str, Any] = {
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 16,
    "intermediate_size": 48,
}
LOCAL: dict[str, Any] = {"num_local_experts": 8, "num_experts_per_tok": 3, "intermediate_size": 16}

# family -> (class prefix, configuration, MoE layers, has output_router_logits)
FAMILIES: dict[str, tuple[str, dict[str, Any], int, bool]] = {
    "olmoe": (
        "Olmoe",
        {"num_experts": 8, "num_experts_per_tok": 3, "intermediate_size": 16},
        4,
        True,
    ),
    "mixtral": ("Mixtral", LOCAL, 4, True),
    "qwen2_moe": (
        "Qwen2Moe",
        QWEN | {"shared_expert_intermediate_size": 24, "decoder_sparse_step": 2},
        2,
        True,
    ),
    "qwen3_moe": ("Qwen3Moe", QWEN | {"head_dim": 8, "norm_topk_prob": True}, 4, True),
    "deepseek_v2": (
        "DeepseekV2",
        MLA | {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2},
        3,
        False,
    ),
    "deepseek_v3": ("DeepseekV3", MLA | {"n_group": 4, "topk_group": 2}, 3, False),
    "gpt_oss": ("GptOss", LOCAL | {"head_dim": 8, "sliding_window": 16}, 4, True),
    "phimoe": ("Phimoe", LOCAL | {"num_experts_per_tok": 2}, 4, True),
    "granitemoe": ("GraniteMoe", LOCAL, 4, True),
}


def build(family: str, seed: int = 0) -> Any:
    """A random model of `family` in fp32; also norms and biases are random, as in a trained one."""
    import transformers

    prefix, extra, _, _ = FAMILIES[family]
    torch.manual_seed(seed)
    config = getattr(transformers, f"{prefix}Config")(**(SIZES | extra))
    model = getattr(transformers, f"{prefix}ForCausalLM")(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "norm" in name:
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif "bias" in name:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.5)
    return model
