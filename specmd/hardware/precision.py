"""Low-bit copies of experts: how small they are.

A copy is quantised in groups of weights, each with a scale of its own, as is usual for weights
alone (GPTQ, AWQ): so a weight takes its bits and its part of the scale.
"""

from __future__ import annotations

GROUP = 64
"""Weights that share a scale."""
SCALE_BITS = 16
STORED_BITS = 16.0
"""Bits a weight, where the model's shape is not known."""


def low_bit_share(bits: int, stored_bits: float = STORED_BITS) -> float:
    """Return the bytes of a copy of so many bits, as a share of the expert's; at most all."""
    return min(1.0, (bits + SCALE_BITS / GROUP) / stored_bits)
