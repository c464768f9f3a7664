"""What the gates of a model say: their logits, read while it runs, in the numbers a trace holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from specmd.models.moe import MoeModel, router_logits

_HALF = np.finfo(np.float16)


def watch_gates(moe: MoeModel, hear: Callable[[int, Tensor], None]) -> list[RemovableHandle]:
    """Let `hear(layer, logits)` be called whenever a gate has run; returns the hooks.

    Args:
        moe: its MoE layers.
        hear: is given the number of the MoE layer and (T, E) logits of all rows of the pass, on
            the device; called before the layer's experts are.

    """

    def tell(number: int, _gate: nn.Module, _args: Any, output: Any) -> None:
        hear(number, router_logits(output, moe.num_experts))

    return [
        layer.gate.register_forward_hook(partial(tell, number))
        for number, layer in enumerate(moe.layers)
    ]


def halved(values: Tensor) -> npt.NDArray[np.float16]:
    """Return float16 on the host; what does not fit becomes the largest finite number."""
    numbers: npt.NDArray[np.float32] = values.detach().float().cpu().numpy()
    clipped: Any = np.clip(numbers, float(_HALF.min), float(_HALF.max)).astype(np.float16)
    return clipped  # type: ignore[no-any-return]
