"""What computing takes: one expert by number of tokens, reading memory, launching a kernel.

Experts are timed as decode meets them, one after another and each time another one, so that weights
come from memory and not from a cache that holds the last of them (unless all of them fit into it,
as they then do in a run, too).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from specmd.live.experts import Grouping, weighted_product

_SPAN_S = 0.15  # time spent on one measurement


def seconds_each(device: torch.device, run: Callable[[int], Any]) -> float:
    """Seconds of `run(i)`, best of three spans, each ended by waiting for the device."""
    run(0)
    wait_for(device)
    start = time.perf_counter()
    run(1)
    wait_for(device)
    once = max(time.perf_counter() - start, 1e-6)
    count = max(3, int(_SPAN_S / once))
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        for number in range(count):
            run(number)
        wait_for(device)
        best = min(best, (time.perf_counter() - start) / count)
    return best


def expert_seconds(
    experts: nn.Module,
    views: list[dict[str, Tensor]],
    hidden_size: int,
    tokens: tuple[int, ...],
) -> dict[int, float]:
    """Seconds of one expert for each number of tokens.

    Args:
        experts: the module whose flags and gate are used.
        views: tensors of several experts, on the device.
        hidden_size: H.
        tokens: numbers of tokens.

    """
    some = next(iter(views[0].values()))
    kind = some.dtype if some.is_floating_point() else torch.float32
    found: dict[int, float] = {}
    for count in tokens:
        hidden = torch.randn((count, hidden_size), device=some.device).to(kind)
        ids = torch.zeros((count, 1), dtype=torch.int64, device=some.device)
        group = Grouping(ids, torch.ones_like(ids, dtype=kind), [count], None)

        def run(number: int, hidden: Tensor = hidden, group: Grouping = group) -> None:
            weighted_product(experts, views[number % len(views)], hidden, group, 0)

        with torch.no_grad():
            found[count] = seconds_each(some.device, run)
    return found


def memory_bytes_per_s(device: torch.device, megabytes: int = 256) -> float:
    """Bandwidth of reading device memory by matrix-vector products over a large buffer."""
    rows = 1024
    matrices = [torch.ones((rows, 1024), device=device) for _ in range(max(2, megabytes // 4))]
    vector = torch.ones(1024, device=device)

    def run(number: int) -> None:
        torch.mv(matrices[number % len(matrices)], vector)

    return matrices[0].numel() * 4 / seconds_each(device, run)


def launch_s(device: torch.device) -> float:
    """Seconds of a kernel that does next to nothing."""
    small = torch.zeros(8, device=device)
    return seconds_each(device, lambda _: small.add_(1))


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all it was given; the processor always has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
