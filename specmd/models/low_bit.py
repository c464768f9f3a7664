"""Copies of experts of few bits: how they lie in memory, how they are made and read.

A matrix is cut into groups of GROUP weights that follow each other; a group has one scale of 16
bits, its largest magnitude over the largest number of the code, and each weight is the nearest
multiple of it: symmetric, rounded to nearest, nothing calibrated. So a weight takes its bits and a
64th of a scale: 4.25 bits in place of 16. Codes of 4 bits lie two in a byte. Vectors (biases) and
what is no float stay as they are.

A copy is read by the kernel of the whole expert: it is unpacked into the type of the weights when
it is used, every time it is used, because a slot has no room for both. That costs the device the
bytes of the whole expert twice, written and read again, and as much memory for the moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from specmd.errors import SpecmdError
from specmd.hardware.precision import GROUP
from specmd.models.layout import Layout, Layouts, Piece, place

CODES, SCALES = ".codes", ".scales"
Bits = Literal[4, 8]


@dataclass(frozen=True)
class LowBit:
    """The copies of the experts of one layer.

    Attributes:
        whole: how an expert lies in memory.
        bits: 4 or 8.

    """

    whole: Layout
    bits: int

    @cached_property
    def packed(self) -> Layout:
        """How a copy lies in memory."""
        parts: list[tuple[str, tuple[int, ...], torch.dtype]] = []
        for piece in self.whole.pieces:
            if not _is_packed(piece):
                parts.append((piece.name, piece.shape, piece.dtype))
                continue
            groups = _groups(piece)
            parts.append((piece.name + CODES, (groups, GROUP * self.bits // 8), torch.uint8))
            parts.append((piece.name + SCALES, (groups, 1), torch.float16))
        return place(parts)

    def pack(self, blob: Tensor, into: Tensor) -> None:
        """Make the copy of an expert.

        Args:
            blob: (whole.blob_bytes,) uint8 of the expert.
            into: (packed.blob_bytes,) uint8 of the copy.

        """
        given, made = self.whole.views(blob), self.packed.views(into)
        for piece in self.whole.pieces:
            if _is_packed(piece):
                codes, scales = quantise(given[piece.name], self.bits)
                made[piece.name + CODES].copy_(codes)
                made[piece.name + SCALES].copy_(scales)
            else:
                made[piece.name].copy_(given[piece.name])

    def unpack(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of an expert from those of its copy, in the expert's own types."""
        found = {}
        for piece in self.whole.pieces:
            if not _is_packed(piece):
                found[piece.name] = views[piece.name]
                continue
            codes, scales = views[piece.name + CODES], views[piece.name + SCALES]
            flat = dequantise(codes, scales, self.bits, piece.dtype).view(-1)
            found[piece.name] = flat[: _numel(piece)].view(piece.shape)
        return found


def low_bit_layouts(layouts: Layouts, bits: int) -> tuple[LowBit, ...]:
    """Lay out the copies of all layers' experts.

    Raises:
        SpecmdError: copies would be no smaller: the experts are of few bits themselves.

    """
    found = {layout: LowBit(layout, bits) for layout in layouts.of_layer}
    for layout, low in found.items():
        if low.packed.blob_bytes >= layout.blob_bytes:
            raise SpecmdError(
                f"copies of {bits} bits would be as large as the experts: leave out the policy "
                "that fetches them, or give it fewer bits"
            )
    return tuple(found[layout] for layout in layouts.of_layer)


def low_bit_share(copies: tuple[LowBit, ...]) -> float:
    """Bytes of the copies of all layers over those of the experts; 1 where there are none."""
    whole = sum(each.whole.expert_bytes for each in copies)
    return sum(each.packed.expert_bytes for each in copies) / whole if copies else 1.0


def quantise(weights: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return codes (groups, GROUP * bits / 8) uint8 and scales (groups, 1) float16."""
    flat = weights.detach().float().reshape(-1)
    padding = -len(flat) % GROUP
    rows = torch.nn.functional.pad(flat, (0, padding)).view(-1, GROUP)
    most = (1 << (bits - 1)) - 1
    limit = torch.finfo(torch.float16)
    scales = (rows.abs().amax(1, keepdim=True) / most).clamp(limit.smallest_normal, limit.max)
    scales = scales.half()
    codes = (rows / scales.float()).round_().clamp_(-most, most).to(torch.int16) + most
    if bits == 8:
        return codes.to(torch.uint8), scales
    low, high = codes[:, : GROUP // 2], codes[:, GROUP // 2 :]
    return (low + high * 16).to(torch.uint8), scales


def dequantise(codes: Tensor, scales: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """Return weights (groups, GROUP) of a type, computed in it."""
    if bits == 4:
        codes = torch.cat([codes & 15, codes >> 4], 1)
    return (codes.to(dtype) - ((1 << (bits - 1)) - 1)) * scales.to(dtype)


def _is_packed(piece: Piece) -> bool:
    return len(piece.shape) >= 2 and piece.dtype.is_floating_point and piece.dtype.itemsize >= 2


def _numel(piece: Piece) -> int:
    return piece.num_bytes // piece.dtype.itemsize


def _groups(piece: Piece) -> int:
    return -(-_numel(piece) // GROUP)
