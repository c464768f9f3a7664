"""Whether something fits into memory, asked before it is allocated.

A process that outgrows its memory is not told: it is killed, or the machine swaps. So the amount is
compared with what the system says is available, and with what the container (cgroup) still allows.
Nobody kills a simulated run: what its device would have to hold is counted (`beside_slots`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from specmd.errors import SpecmdError
from specmd.hardware.shape import ModelShape

HEADROOM = 0.05  # of what is available, left to everybody else
_GROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """Bytes of host memory that can still be allocated; None where the system does not say."""
    found = [size for size in (_meminfo(), _group()) if size is not None]
    return min(found, default=None)


def require_memory(layer_bytes: Sequence[int], other_bytes: int, what: str) -> None:
    """Raise SpecmdError unless all layers and something else fit, saying how many would.

    Args:
        layer_bytes: (layers,) of each layer.
        other_bytes: wanted besides, however many layers.
        what: is to be allocated, for the message.

    """
    free = available_bytes()
    if free is None:
        return
    usable = int(free * (1 - HEADROOM))
    wanted = sum(layer_bytes) + other_bytes
    if wanted <= usable:
        return
    fits = sum(size <= usable - other_bytes for size in accumulate(layer_bytes))
    advice = f"take fewer layers: {fits} would fit (--layers {fits})"
    if not fits:
        advice = "not even one layer would fit: take a machine with more memory"
    raise SpecmdError(
        f"{what} takes {wanted / 1e9:.1f} GB in {len(layer_bytes)} layers, and {usable / 1e9:.1f} "
        f"GB of host memory are free: {advice}"
    )


class Beside(NamedTuple):
    """Bytes that a device holds beside the slots of the cache; None where the model is unknown."""

    staging: int
    weights: int | None  # all that is no expert
    kv: int | None  # keys and values of `context_tokens`
    context_tokens: int

    @property
    def total(self) -> int:
        """All of it, as far as it is known."""
        return self.staging + (self.weights or 0) + (self.kv or 0)


def beside_slots(
    shape: ModelShape | None, expert_bytes: int, staging: int, context_tokens: int
) -> Beside:
    """Count what a device holds beside the slots.

    Args:
        shape: of the model; without one only the staging slots are known.
        expert_bytes: of the largest expert.
        staging: slots for what passes through.
        context_tokens: whose keys and values are held at once.

    """
    if shape is None:
        return Beside(staging * expert_bytes, None, None, context_tokens)
    experts = shape.moe_layers * shape.experts * shape.expert_parameters
    return Beside(
        staging * expert_bytes,
        int((shape.total_parameters - experts) * shape.dense_weight_bits / 8),
        context_tokens * shape.kv_bytes_per_token * shape.layers,
        context_tokens,
    )


def _meminfo() -> int | None:
    text = _read(Path("/proc/meminfo"))
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _group() -> int | None:
    """Return what the container still allows: cgroup 2, its file cache counted as free."""
    limit, used = _read(_GROUP / "memory.max").strip(), _read(_GROUP / "memory.current").strip()
    if not (limit.isdigit() and used.isdigit()):
        return None
    cached = 0
    for line in _read(_GROUP / "memory.stat").splitlines():
        if line.startswith("inactive_file "):
            cached = int(line.split()[1])
    return max(0, int(limit) - int(used) + cached)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
