"""Finding the Mixture-of-Experts layers of a transformers model.

In transformers 5 every MoE block has the same anatomy, whatever its family: a *gate* (or `router`)
that turns a token's hidden state into `(router_logits, top_k_weights, top_k_index)`, and a module
`experts` that is called with `(hidden_states, top_k_index, top_k_weights)` and holds the weights of
all routed experts fused in three-dimensional parameters. The block itself is not told its layer
number, so it is read from the module's path (`model.layers.3.mlp`).

A model may mix MoE layers with dense ones (DeepSeek's first layers) and add shared experts that
every token uses: neither is routed, so neither is in a trace.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor, nn

from specmd.errors import SpecmdError

GATE_NAMES = ("gate", "router")
NORM_NAMES = ("post_attention_layernorm", "pre_feedforward_layernorm", "ffn_norm")
_LAYER = re.compile(r"^(?P<decoder>.*?)(?:^|\.)layers\.(?P<index>\d+)\.")


@dataclass(frozen=True)
class MoeLayer:
    """One MoE block of a model.

    Attributes:
        index: number of the decoder layer it sits in, counted over dense layers too.
        name: path of the block, for messages.
        block: the module that calls gate and experts.
        gate: the router; its forward returns logits, weights and ids, see `router_logits`.
        experts: the routed experts; called with `(hidden_states, ids, weights)`.
        norm: the normalisation whose output is the gate's input, or None where not found.

    """

    index: int
    name: str
    block: nn.Module
    gate: nn.Module
    experts: nn.Module
    norm: nn.Module | None


@dataclass(frozen=True)
class MoeModel:
    """The parts of a model that a recorder watches: its decoder, its MoE layers in order."""

    decoder: nn.Module
    num_decoder_layers: int
    layers: tuple[MoeLayer, ...]
    num_experts: int


def find_moe(model: nn.Module) -> MoeModel:
    """Locate decoder and MoE layers of `model`.

    Raises:
        SpecmdError: no MoE layer was found, the layers differ in their number of experts, or they
            belong to more than one decoder.

    """
    found: list[MoeLayer] = []
    decoders: set[str] = set()
    modules = dict(model.named_modules())
    for name, module in modules.items():
        gate = next((c for n, c in module.named_children() if n in GATE_NAMES), None)
        experts = module._modules.get("experts")
        place = _LAYER.match(name + ".")
        if gate is None or experts is None or place is None or not _is_fused(experts):
            continue
        decoders.add(place["decoder"])
        parent = modules[place[0].rstrip(".")]
        norm = next((getattr(parent, n) for n in NORM_NAMES if hasattr(parent, n)), None)
        found.append(MoeLayer(int(place["index"]), name, module, gate, experts, norm))
    kind = type(model).__name__
    if not found:
        raise SpecmdError(
            f"{kind} has no Mixture-of-Experts layer that transformers 5 lays out as gate and "
            f"experts: give a MoE model such as OLMoE, Mixtral, Qwen3-MoE, DeepSeek or GPT-OSS"
        )
    if len(decoders) > 1:
        raise SpecmdError(f"{kind} has {len(decoders)} stacks of MoE layers: record one of them")
    counts = {count_experts(layer.experts) for layer in found}
    if len(counts) > 1:
        raise SpecmdError(f"{kind} has layers of {sorted(counts)} experts: all must be equal")
    decoder = modules[decoders.pop()]
    found.sort(key=lambda layer: layer.index)
    depth = len(decoder.get_submodule("layers")._modules)
    return MoeModel(decoder, depth, tuple(found), counts.pop())


def count_experts(experts: nn.Module) -> int:
    """Routed experts E held by one `experts` module."""
    declared = getattr(experts, "num_experts", None)
    if isinstance(declared, int):
        return declared
    return next(int(p.shape[0]) for p in experts.parameters(recurse=False) if p.dim() == 3)


def router_logits(output: tuple[Tensor, ...], experts: int) -> Tensor:
    """Return the (T, E) logits among what a gate returned, in whatever order its release does.

    Raises:
        SpecmdError: there is not exactly one tensor that can be them.

    """
    found = [t for t in output if t.is_floating_point() and t.shape[-1] == experts]
    if len(found) == 2 and len(output) == 3:  # every expert is chosen: weights look alike
        found = [output[0] if output[0].is_floating_point() else output[2]]
    if len(found) != 1:
        shapes = [tuple(tensor.shape) for tensor in output]
        raise SpecmdError(f"a gate returned {shapes}, not logits of {experts} experts: unknown")
    return found[0]


def _is_fused(experts: nn.Module) -> bool:
    """Whether one module holds all experts, stacked or (quantised) in a layout of its own."""
    stacked = any(p.dim() == 3 for p in experts.parameters(recurse=False))
    return stacked or isinstance(getattr(experts, "num_experts", None), int)
