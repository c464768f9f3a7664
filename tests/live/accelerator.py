"""What the tests of the accelerator link share: the device, and one generation on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from live_models import generate, prompt

from specmd.live import offload

marks = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.accelerator.is_available(), reason="torch reports no accelerator on this machine"
    ),
]


def here() -> torch.device:
    """The accelerator's present device."""
    device = torch.accelerator.current_accelerator()
    assert device is not None
    return torch.device(device.type, torch.accelerator.current_device_index())


def on_device(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Tensors moved to the accelerator."""
    return {name: tensor.to(here()) for name, tensor in inputs.items()}


def live(
    model: Any, tokens: int = 8, inputs: dict[str, torch.Tensor] | None = None, **options: Any
) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Greedy tokens, logits and the cache of a generation under the accelerator link."""
    inputs = inputs or prompt(1, 16)
    options = {"interpreted": True, "canary": True} | options
    with offload(model, link="accelerator", **options) as cache:
        ids, logits = generate(model, tokens, **on_device(**inputs))
    return ids.cpu(), logits.cpu(), cache
