"""A hollow model: all of it in memory except its experts.

To offload a model that is larger than the host's memory, it must never be loaded whole. The model
is built with its fused expert parameters on `meta`, where they take no memory, and its dense
weights are read from the checkpoint; the experts are read later, one by one, when the cache wants
them (`specmd.live.stores.checkpoint`).
"""

from __future__ import annotations

from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from specmd.errors import SpecmdError
from specmd.models.files import CheckpointFiles
from specmd.models.layout import expert_tensors
from specmd.models.moe import find_moe

_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")


def load_without_experts(folder: str | PathLike[str]) -> Any:
    """Load a model's dense weights; its experts stay on `meta`, for `offload(checkpoint=folder)`.

    Raises:
        SpecmdError: no checkpoint there, or dense weights that it does not hold under their name.

    """
    from transformers import AutoConfig, AutoModelForCausalLM

    files = CheckpointFiles(folder)
    config: Any = AutoConfig.from_pretrained(folder)
    auto: Any = AutoModelForCausalLM
    experts = next((n for name in _COUNTS if (n := getattr(config, name, None))), 0)
    kind = getattr(torch, files.dtype(files.names()[0]))
    with ExpertsOnMeta(experts):
        model = auto.from_config(config, dtype=kind)
    missing = _fill(model, files)
    if getattr(config, "tie_word_embeddings", False):
        missing = [name for name in missing if not name.startswith("lm_head")]
    if missing:
        raise SpecmdError(f"{folder}: the checkpoint has no {missing[0]} under that name")
    files.close()
    return model.eval()


@torch.no_grad()
def _fill(model: Any, files: CheckpointFiles) -> list[str]:
    """Read all that is not an expert; return the parameters that are not there."""
    stored = files.names()
    routed = {
        id(tensor)
        for layer in find_moe(model).layers
        for tensor in expert_tensors(layer.experts).values()
    }
    missing: list[str] = []
    for owner_name, owner in model.named_modules():
        tensors: list[tuple[str, Tensor | None]] = [
            *owner._parameters.items(),
            *owner._buffers.items(),
        ]
        for name, held in tensors:
            if held is None or id(held) in routed:
                continue
            if held.is_meta:  # it only looked like experts
                held = nn.Parameter(torch.zeros_like(held, device="cpu"), requires_grad=False)
                owner._parameters[name] = held
            full = f"{owner_name}.{name}".lstrip(".")
            found = _stored_name(full, stored)
            if found:
                held.copy_(files.tensor(found))
            elif name in owner._parameters:
                missing.append(full)
    model.tie_weights()
    return missing


def _stored_name(name: str, stored: list[str]) -> str:
    """Name of a parameter in a checkpoint, "" if it is not there.

    Some families (Mixtral) call the block otherwise on disk; layer and last two words agree.
    """
    if name in stored:
        return name
    parts = name.split(".")
    if "layers" not in parts:
        return ""
    layer = ".".join(parts[: parts.index("layers") + 2]) + "."
    ending = "." + ".".join(parts[-2:])
    alike = [n for n in stored if n.startswith(layer) and n.endswith(ending)]
    return alike[0] if len(alike) == 1 else ""


class ExpertsOnMeta(TorchFunctionMode):
    """Makes tensors with a first axis over experts on `meta` while a model is built."""

    def __init__(self, experts: int) -> None:
        self._experts = experts

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            shape = args[0] if len(args) == 1 and isinstance(args[0], tuple | list) else args
            if len(shape) >= 2 and shape[0] == self._experts:
                kwargs["device"] = "meta"
        return func(*args, **kwargs)
