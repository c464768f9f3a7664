"""What an expert takes here, over the link and on the host: for policies that share misses out.

Measured before anything is cached, once, on numbers of no meaning: two live runs may therefore
share misses out differently. Given rates are taken as they are, and repeat.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from specmd.core.event import FloatArray
from specmd.errors import SpecmdError
from specmd.live.experts import matrix_product
from specmd.models.layout import Layouts
from specmd.models.moe import MoeModel

TIMES = 9
MORE_TOKENS = 8


def known_rates(
    moe: MoeModel, layouts: Layouts, device: torch.device, options: dict[str, Any]
) -> FloatArray:
    """Return the rates that `offload` was given, or measure them; SpecmdError for other than 4."""
    given = options["rates"]
    if given is None:
        return measure_rates(moe, layouts, device, options["throttle"])
    if len(given) != 4 or not all(each >= 0 for each in given) or not given[0] > 0:
        raise SpecmdError(
            f"rates {given}: give 4 numbers of seconds: over the link, on the host for a token, "
            "there for each token more, on the device"
        )
    return np.asarray(given, np.float64)


def measure_rates(
    moe: MoeModel, layouts: Layouts, device: torch.device, throttle: tuple[float, float] | None
) -> FloatArray:
    """Measure seconds of an expert, as `specmd.core.event.World.rates` has them.

    Args:
        moe: the model's MoE layers; the first one's expert is the one measured.
        layouts: of the experts.
        device: of the slots.
        throttle: bytes per second and latency that copies will be paced to, or None.

    """
    layout, experts = layouts.of_layer[0], moe.layers[0].experts
    blob = torch.zeros(layout.blob_bytes, dtype=torch.uint8)
    weights = layout.views(blob)
    down = next(piece for piece in layout.pieces if piece.name == "down_proj")
    width = down.shape[1] if getattr(experts, "is_transposed", False) else down.shape[0]

    def on_host(tokens: int) -> float:
        hidden = torch.zeros(tokens, width, dtype=down.dtype)
        return _seconds(lambda: matrix_product(experts, weights, hidden))

    if throttle is not None:
        link_s = throttle[1] + layout.blob_bytes / throttle[0]
    else:
        there = torch.empty_like(blob, device=device)
        link_s = _seconds(lambda: _copy(blob, there))
    once_s = on_host(1)
    more_s = max(0.0, (on_host(1 + MORE_TOKENS) - once_s) / MORE_TOKENS)
    return np.array([link_s, once_s, more_s, 0.0])


def _copy(source: torch.Tensor, there: torch.Tensor) -> None:
    there.copy_(source)
    if there.device.type != "cpu":
        torch.accelerator.current_stream(there.device).synchronize()


def _seconds(work: Callable[[], object]) -> float:
    """Median of several times, the first left out."""
    found = []
    with torch.no_grad():
        for _ in range(TIMES + 1):
            began_s = time.perf_counter()
            work()
            found.append(time.perf_counter() - began_s)
    return statistics.median(found[1:])
