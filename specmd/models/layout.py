"""How one expert lies in memory: every tensor of it, one after the other, in one contiguous blob.

A transfer has a fixed cost, so an expert must be one copy, not one a projection; and an expert is
whole only with all that belongs to it (biases, scales), so whatever the `experts` module holds with
a first axis over experts is in the blob. Tensors start at multiples of 64 bytes and blobs take
multiples of 256: the same kernel then meets the same alignment in every slot, which keeps results
bitwise independent of where an expert happens to lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from specmd.errors import SpecmdError
from specmd.models.moe import MoeModel, count_experts

TENSOR_ALIGNMENT = 64
BLOB_ALIGNMENT = 256


@dataclass(frozen=True)
class Piece:
    """One tensor of an expert.

    Attributes:
        name: its name in the `experts` module.
        shape: without the axis over experts.
        dtype: of its elements.
        start: first byte in the blob.
        num_bytes: its size.

    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    start: int
    num_bytes: int

    def view(self, blob: Tensor) -> Tensor:
        """Return the tensor that lies in `blob`, (blob_bytes,) uint8; shares its memory."""
        return blob[self.start : self.start + self.num_bytes].view(self.dtype).view(self.shape)


@dataclass(frozen=True)
class Layout:
    """The blob of an expert: its pieces, its size, and how much of it is payload."""

    pieces: tuple[Piece, ...]
    blob_bytes: int
    expert_bytes: int

    def views(self, blob: Tensor) -> dict[str, Tensor]:
        """All tensors of the expert in `blob`, by name."""
        return {piece.name: piece.view(blob) for piece in self.pieces}


def read_layout(moe: MoeModel) -> Layout:
    """Lay out the experts of a model.

    Raises:
        SpecmdError: the experts are not plain fused tensors, or differ from layer to layer.

    """
    layouts = {_layout_of(layer.experts, layer.name) for layer in moe.layers}
    if len(layouts) > 1:
        raise SpecmdError("the model's layers have experts of different shapes: not supported")
    return layouts.pop()


def expert_tensors(experts: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of an `experts` module that have a first axis over experts."""
    count = count_experts(experts)
    return {
        name: parameter
        for name, parameter in experts.named_parameters(recurse=False)
        if parameter.dim() >= 2 and parameter.shape[0] == count
    }


def _layout_of(experts: nn.Module, name: str) -> Layout:
    kind = type(experts).__name__
    flags = ("has_gate", "has_bias", "is_transposed", "config")
    if not all(hasattr(experts, flag) for flag in flags):
        raise SpecmdError(
            f"{name}: {kind} does not use the experts interface of transformers 5, so another "
            f"implementation cannot be plugged in: this architecture cannot be offloaded"
        )
    tensors = expert_tensors(experts)
    first = "gate_up_proj" if experts.has_gate else "up_proj"
    needed = [first, "down_proj"]
    if experts.has_bias:
        needed += [f"{first}_bias", "down_proj_bias"]
    missing = [part for part in needed if part not in tensors]
    if missing:
        raise SpecmdError(
            f"{name}: {kind} holds no fused {missing[0]} over its experts: this architecture or "
            f"quantisation cannot be offloaded"
        )
    pieces: list[Piece] = []
    end = 0
    for part, tensor in tensors.items():
        shape = tuple(tensor.shape[1:])
        size = tensor[0].numel() * tensor.element_size()
        pieces.append(Piece(part, shape, tensor.dtype, end, size))
        end += -(-size // TENSOR_ALIGNMENT) * TENSOR_ALIGNMENT
    blob = -(-end // BLOB_ALIGNMENT) * BLOB_ALIGNMENT
    return Layout(tuple(pieces), blob, sum(piece.num_bytes for piece in pieces))
