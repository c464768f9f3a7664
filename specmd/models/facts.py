"""What the header of a recording says about the model: sizes, counted from the model itself.

The names are those of `specmd.hardware.shape.ModelShape`, so that a simulator can price the
recorded model without knowing its family. Everything is counted from parameters, because
configurations name the same size differently in every family. Shared experts (used by every token)
and dense layers appear here and nowhere else in a trace.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from specmd.errors import SpecmdError
from specmd.models.moe import MoeModel, count_experts


def model_facts(model: nn.Module, moe: MoeModel) -> dict[str, Any]:
    """Return the shape of `model` as plain numbers and lists.

    Parameter counts are those of one layer (the first MoE layer, the first dense one).
    `expert_bytes` is one routed expert as it is in memory now, biases and scales included; where
    the layers' experts differ, it is the mean, and `expert_bytes_by_layer` has them all.
    """
    first = moe.layers[0]
    hidden, intermediate = _matrix_sizes(first.experts)
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    indices = [layer.index for layer in moe.layers]
    parent = _parent(moe, first.index)
    shared = [m for name, m in first.block.named_children() if name.startswith("shared_expert")]
    attention = getattr(parent, "self_attn", None)
    norms = [m for name, m in parent.named_children() if "norm" in name]
    heads = getattr(text, "num_attention_heads", None)
    facts: dict[str, Any] = {
        "architecture": type(model).__name__,
        "layers": moe.num_decoder_layers,
        "moe_layers": len(indices),
        "moe_layer_indices": indices,
        "hidden": hidden or getattr(text, "hidden_size", None),
        "experts": moe.num_experts,
        "top_k": getattr(text, "num_experts_per_tok", None),
        "expert_intermediate": intermediate,
        "expert_matrices": 3 if hasattr(first.experts, "gate_up_proj") else 2,
        "expert_bias_parameters": expert_parameters(first.experts, dims=2),
        **size_facts(moe),
        "expert_dtype": str(next(first.experts.parameters()).dtype).removeprefix("torch."),
        "shared_experts": int(bool(shared)),
        "shared_intermediate": _rows(shared),
        "dense_intermediate": _dense_rows(moe),
        "heads": heads,
        "kv_heads": getattr(text, "num_key_value_heads", heads),
        "attention_parameters": _count(attention),
        "router_parameters": _count(first.gate),
        "norm_parameters": sum(_count(norm) for norm in norms),
        "vocab": getattr(text, "vocab_size", None),
        "tied_embeddings": bool(getattr(text, "tie_word_embeddings", False)),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    return {name: value for name, value in facts.items() if value is not None}


def layer_bytes(moe: MoeModel) -> tuple[int, ...]:
    """Bytes of one routed expert of each layer, (layers,)."""
    return tuple(expert_bytes(layer.experts) for layer in moe.layers)


def size_facts(moe: MoeModel) -> dict[str, Any]:
    """Return `expert_bytes` and `expert_bytes_by_layer` as the header of a trace has them."""
    sizes = layer_bytes(moe)
    return {
        "expert_bytes": round(sum(sizes) / len(sizes)) or None,
        "expert_bytes_by_layer": list(sizes) if len(set(sizes)) > 1 else None,
    }


def expert_bytes(experts: nn.Module) -> int:
    """Bytes of one routed expert: every parameter and buffer whose first axis runs over experts."""
    parts = [*experts.parameters(recurse=False), *experts.buffers(recurse=False)]
    count = count_experts(experts)
    per_expert = [p for p in parts if p.dim() and p.shape[0] == count]
    return sum(p.numel() // count * p.element_size() for p in per_expert)


def kv_bytes_per_token(model: nn.Module) -> int:
    """Bytes of keys and values that one token takes in all layers; SpecmdError if unknown.

    At most: at full length also where attention slides, and expanded where it is latent, as older
    releases of transformers cache it (newer ones keep the latents, a fraction of that).
    """
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    heads = getattr(text, "num_attention_heads", None)
    layers = getattr(text, "num_hidden_layers", None)
    if not heads or not layers:
        raise SpecmdError("the model does not say how large its keys and values are")
    size = next(p.element_size() for p in model.parameters() if p.is_floating_point())
    if getattr(text, "kv_lora_rank", None):
        width = heads * (text.qk_nope_head_dim + text.qk_rope_head_dim + text.v_head_dim)
    else:
        head = getattr(text, "head_dim", None) or text.hidden_size // heads
        width = 2 * (getattr(text, "num_key_value_heads", None) or heads) * head
    return int(layers * width * size)


def expert_parameters(experts: nn.Module, dims: int) -> int:
    """Parameters of one routed expert that lie in fused tensors of `dims` dimensions."""
    parts = [p for p in experts.parameters(recurse=False) if p.dim() == dims]
    return sum(p.numel() // int(p.shape[0]) for p in parts)


def _matrix_sizes(experts: nn.Module) -> tuple[int | None, int | None]:
    """(hidden, intermediate) from the product and the down projection's two sides."""
    down = dict(experts.named_parameters(recurse=False)).get("down_proj")
    if down is None or down.dim() != 3:  # quantised: the sizes are not in the shapes
        return None, None
    one, two = int(down.shape[-2]), int(down.shape[-1])
    return (two, one) if getattr(experts, "is_transposed", False) else (one, two)


def _parent(moe: MoeModel, index: int) -> nn.Module:
    return moe.decoder.get_submodule(f"layers.{index}")


def _count(module: nn.Module | None) -> int:
    return 0 if module is None else sum(p.numel() for p in module.parameters())


def _rows(modules: list[nn.Module]) -> int:
    """Intermediate size of the widest gated block among `modules`, 0 if there is none."""
    sizes = [
        int(p.shape[0])
        for module in modules
        for name, p in module.named_parameters()
        if name.startswith("gate_proj")
    ]
    return max(sizes, default=0)


def _dense_rows(moe: MoeModel) -> int:
    routed = {layer.index for layer in moe.layers}
    dense = [i for i in range(moe.num_decoder_layers) if i not in routed]
    blocks = [getattr(_parent(moe, i), "mlp", None) for i in dense[:1]]
    return _rows([block for block in blocks if block is not None])
