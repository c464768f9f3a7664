"""How many bytes of a device are left for slots, beside what else the model needs there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from specmd.errors import SpecmdError
from specmd.hardware.memory import HEADROOM, available_bytes
from specmd.models.facts import kv_bytes_per_token, layer_bytes
from specmd.models.moe import MoeModel


def room_on(
    device: torch.device, model: nn.Module, moe: MoeModel, options: dict[str, Any]
) -> Callable[[int | None], int]:
    """Return what says how many bytes so many in total, or all that are free, leave for slots.

    Staging slots, keys and values of `context` tokens and all weights that are no experts take the
    rest. Where the host computes, those weights are in its memory already: what is free is without
    them.
    """

    def left(total: int | None) -> int:
        if options["context"] is None:
            raise SpecmdError(
                f"capacity '{options['capacity']}' must know how many tokens are held: give context"
            )
        kv: int = options["context"] * kv_bytes_per_token(model)
        staging: int = options["staging_slots"] * max(layer_bytes(moe))
        weights = _other_weights(model, moe)
        if total is None:
            total = int(free_bytes(device) * (1 - HEADROOM))
            weights = 0 if device.type == "cpu" else weights
        return total - weights - kv - staging

    return left


def free_bytes(device: torch.device) -> int:
    """Bytes of a device's memory that can be allocated; SpecmdError where it does not say."""
    if device.type == "cpu":
        free = available_bytes()
    else:
        try:
            free = int(torch.accelerator.get_memory_info(device)[0])
        except (AttributeError, RuntimeError, NotImplementedError):
            free = None
    if free is None:
        raise SpecmdError(f"{device} does not say how much memory is free: give '8GB total'")
    return int(free)


def dense_bytes(model: nn.Module) -> int:
    """Bytes of everything in an offloaded model that is not an expert."""
    tensors = [*model.parameters(), *model.buffers()]
    own = {t.data_ptr(): t.numel() * t.element_size() for t in tensors if not t.is_meta}
    return sum(own.values())


def _other_weights(model: nn.Module, moe: MoeModel) -> int:
    experts = {id(t) for layer in moe.layers for t in layer.experts.parameters()}
    experts |= {id(t) for layer in moe.layers for t in layer.experts.buffers()}
    others = {id(t): t for t in (*model.parameters(), *model.buffers()) if id(t) not in experts}
    return sum(t.numel() * t.element_size() for t in others.values())
