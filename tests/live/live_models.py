"""Models and generations that the tests of the live engine share."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from small_models import GPT_OSS, GREEDY, LOCAL, MLA, OLMOE, QWEN, SIZES, build_random

from specmd import live as engine
from specmd.models.layout import expert_tensors, set_width
from specmd.models.moe import find_moe

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "olmoe": ("Olmoe", OLMOE),
    "mixtral": ("Mixtral", LOCAL),
    "qwen3_moe": ("Qwen3Moe", QWEN | {"head_dim": 8}),
    "gpt_oss": ("GptOss", GPT_OSS),
    "deepseek_v2": ("DeepseekV2", MLA | GREEDY),
}


def build(family: str, seed: int = 0, **sizes: Any) -> Any:
    """A random model of a family in fp32; also biases and norms are random."""
    prefix, extra = FAMILIES[family]
    return build_random(prefix, SIZES | extra | sizes, seed)


def build_mixed(family: str = "olmoe", width: int = 5, dtype: torch.dtype = torch.float32) -> Any:
    """Four layers, of which 1 and 3 have experts of another width and type.

    A layer of another type is given and gives back hidden states of the model's.
    """
    model = build(family, num_hidden_layers=4)
    model.set_experts_implementation("eager")  # grouped products want widths of whole 16 bytes
    generator = torch.Generator().manual_seed(1)
    for layer in find_moe(model).layers[1::2]:
        set_width(layer.experts, width)
        for name, tensor in expert_tensors(layer.experts).items():
            values = (torch.rand(tensor.shape, generator=generator) - 0.5).to(dtype)
            setattr(layer.experts, name, torch.nn.Parameter(values))
        if dtype != torch.float32:
            layer.experts.register_forward_pre_hook(lambda _m, args: (args[0].to(dtype), *args[1:]))
            layer.experts.register_forward_hook(lambda _m, _a, output: output.float())
    return model


@cache
def tiny() -> Any:
    """The shipped model, shared: every test must leave it as it was."""
    from specmd.models.tiny import load_tiny

    return load_tiny()[0]


def prompt(rows: int = 1, width: int = 7, vocab: int = 96, seed: int = 0) -> dict[str, Any]:
    """Random token ids, the later rows padded on the left."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, vocab, (rows, width), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        padding = min(row, width - 2)
        ids[row, :padding], mask[row, :padding] = 1, 0
    return {"input_ids": ids, "attention_mask": mask}


def generate(model: Any, tokens: int = 8, **inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Greedy tokens (B, T) and logits (steps, B, V)."""
    inputs = inputs or prompt()
    result = model.generate(
        **inputs,
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=1,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return result.sequences, torch.stack(result.logits)


@cache
def resident(
    family: str, tokens: int = 8, rows: int = 1, width: int = 7
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `build(family)` answers to a prompt with every expert in place; made once."""
    model = build(family)
    with offload(model, capacity="100%", interpreted=True):
        return generate(model, tokens, **prompt(rows, width))


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    """A copy of all parameters."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def offload(model: Any, *args: Any, **options: Any) -> engine.Offload:
    """`specmd.offload` on the cpu link unless another is asked for, whatever this machine has."""
    return engine.offload(model, *args, **({"link": "cpu"} | options))
