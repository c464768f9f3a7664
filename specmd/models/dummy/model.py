"""A model of a shape: transformers' own class, true sizes, weights that mean nothing.

The experts stay on `meta`, where they take no memory: their bytes are in a store. What every step
reads whatever the router says (attention, routers, norms, shared experts, embeddings) is random and
small. Sizes come from the shape, the names that a family gives them from the shape's
`[transformers]` table, and the model that comes out is measured against the shape again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from specmd.errors import SpecmdError, unknown
from specmd.hardware.shape import ModelShape, list_shapes, load_shape
from specmd.models.dummy.noise import Noise
from specmd.models.facts import expert_parameters, layer_bytes, model_facts
from specmd.models.layout import expert_tensors, set_width
from specmd.models.meta import ExpertsOnMeta
from specmd.models.moe import MoeModel, find_moe

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def build_model(
    shape: ModelShape,
    *,
    layers: int | None = None,
    dtype: str | None = None,
    device: Literal["cpu", "meta"] = "cpu",
    seed: int = 0,
    expert_bytes: Sequence[int] | None = None,
) -> Any:
    """Build a transformers model of a shape, its experts on `meta`.

    Args:
        shape: what it is to be.
        layers: only the first so many MoE layers, and the dense ones before them; None is all.
        dtype: of all weights: bfloat16, float16 or float32; None is `default_dtype`.
        device: of the dense weights; on "meta" they hold nothing either.
        seed: of the dense weights.
        expert_bytes: (layers,) what an expert of each layer takes, to the nearest row of its
            matrices; None: what the shape says, in `dtype`.

    Raises:
        SpecmdError: no model of this shape can be built, an impossible number of layers, an
            unknown dtype, or the shape's `[transformers]` table makes another model.

    """
    dtype = dtype or default_dtype(shape)
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    wanted = shape.moe_layers if layers is None else layers
    if not 1 <= wanted <= shape.moe_layers:
        raise SpecmdError(f"{wanted} layers: {shape.name} has 1 to {shape.moe_layers} MoE layers")
    model = _empty_model(shape, wanted, DTYPES[dtype], device)
    moe = find_moe(model)
    _check(model, moe, shape, wanted)
    if expert_bytes is not None:
        own_bytes = layer_bytes(moe)[0]
        for layer, size in zip(moe.layers, expert_bytes, strict=True):
            width = round(shape.expert_intermediate * size / own_bytes)
            set_width(layer.experts, max(1, width))
    if device == "cpu":
        _fill_dense(model, moe, Noise(seed, DTYPES[dtype]))
    return model.requires_grad_(False).eval()


def default_dtype(shape: ModelShape) -> str:
    """Return float32 for checkpoints in float32, else bfloat16: nothing narrower runs here."""
    return "float32" if shape.expert_weight_bits == 32 else "bfloat16"


def can_build(shape: ModelShape) -> bool:
    """Whether a model of the shape can be built: its file has a `[transformers]` table."""
    return shape.transformers is not None


def dense_parameters(model: nn.Module) -> int:
    """Parameters of a model that are not those of a routed expert."""
    routed = _routed(find_moe(model))
    return sum(p.numel() for p in model.parameters() if id(p) not in routed)


def _empty_model(shape: ModelShape, layers: int, dtype: torch.dtype, device: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    table = shape.transformers
    if table is None:
        names = ", ".join(name for name in list_shapes() if can_build(load_shape(name)))
        raise SpecmdError(f"no model of shape '{shape.name}' can be built here; of these: {names}")
    sizes = {name: getattr(shape, field) for name, field in table.sizes.items()}
    sizes |= {
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.dense_layers + layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "num_experts_per_tok": shape.top_k,
        "tie_word_embeddings": shape.tied_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    auto: Any = AutoModelForCausalLM
    for_model: Any = AutoConfig.for_model
    try:
        config = for_model(table.model_type, **sizes, **table.config, **dict.fromkeys(table.unset))
        with torch.device(device), ExpertsOnMeta(shape.experts), no_init_weights():
            model = auto.from_config(config, dtype=dtype)
        model.tie_weights()
        return model
    except (ValueError, TypeError, AttributeError) as error:
        raise SpecmdError(f"shape '{shape.name}', transformers: {error}") from error


def _check(model: Any, moe: MoeModel, shape: ModelShape, layers: int) -> None:
    """Measure the model against the shape."""
    found = model_facts(model, moe)
    first = moe.layers[0].experts
    found["expert_parameters"] = sum(expert_parameters(first, dims=dims) for dims in (2, 3))
    found["moe_layers"] = len(moe.layers)
    # Norms inside attention (of queries, keys, latents) count as either.
    found["attention and norm parameters"] = (
        found["attention_parameters"] + found["norm_parameters"]
    )
    wanted = {
        "moe_layers": layers,
        "hidden": shape.hidden,
        "experts": shape.experts,
        "top_k": shape.top_k,
        "expert_intermediate": shape.expert_intermediate,
        "expert_matrices": shape.expert_matrices,
        "expert_parameters": shape.expert_parameters,
        "router_parameters": shape.router_parameters,
        "attention and norm parameters": shape.attention_parameters + shape.norm_parameters,
        "shared_intermediate": shape.shared_experts * shape.shared_intermediate,
        "dense_intermediate": shape.dense_intermediate,
        "heads": shape.heads,
        "kv_heads": shape.kv_heads,
        "vocab": shape.vocab,
    }
    for name, value in wanted.items():
        if found.get(name) != value:
            raise SpecmdError(
                f"shape '{shape.name}': its [transformers] table makes a model whose {name} is "
                f"{found.get(name)}, not {value}"
            )


def _routed(moe: MoeModel) -> set[int]:
    return {id(t) for layer in moe.layers for t in expert_tensors(layer.experts).values()}


@torch.no_grad()
def _fill_dense(model: Any, moe: MoeModel, noise: Noise) -> None:
    routed = _routed(moe)
    for owner in model.modules():
        for name, held in list(owner._parameters.items()):
            if held is None or id(held) in routed:
                continue
            if held.is_meta:  # it only looked like experts
                held = nn.Parameter(torch.empty_like(held, device="cpu"), requires_grad=False)
                owner._parameters[name] = held
            if "norm" in type(owner).__name__.lower():
                held.fill_(1.0)
            else:
                noise.fill(held)
    model.tie_weights()
