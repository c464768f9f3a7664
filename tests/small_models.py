"""Sizes and weights of the small random models that tests of recording and of live caches use."""

from __future__ import annotations

from typing import Any

import torch

torch.set_num_threads(1)

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": None,
    "initializer_range": 0.3,
}
OLMOE: dict[str, Any] = {"num_experts": 8, "num_experts_per_tok": 3, "intermediate_size": 16}
LOCAL: dict[str, Any] = {"num_local_experts": 8, "num_experts_per_tok": 3, "intermediate_size": 16}
QWEN: dict[str, Any] = {
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 16,
    "intermediate_size": 48,
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
    "n_group": 4,
    "topk_group": 2,
}
GREEDY: dict[str, Any] = {"topk_method": "group_limited_greedy"}
GPT_OSS: dict[str, Any] = LOCAL | {"head_dim": 8, "sliding_window": 16}


def build_random(prefix: str, sizes: dict[str, Any], seed: int) -> Any:
    """A random model of a transformers class in fp32; also norms and biases are random."""
    import transformers

    torch.manual_seed(seed)
    config = getattr(transformers, f"{prefix}Config")(**sizes)
    model = getattr(transformers, f"{prefix}ForCausalLM")(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "norm" in name:
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif "bias" in name:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.5)
    return model
