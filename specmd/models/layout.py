"""How one expert lies in memory: every tensor of it, one after the other, in one contiguous blob.

A transfer has a fixed cost, so an expert must be one copy, not one a projection; and an expert is
whole only with all that belongs to it (biases, scales), so whatever the `experts` module holds with
a first axis over experts is in the blob. Tensors start at multiples of 64 bytes and blobs take
multiples of 256: the same kernel then meets the same alignment in every slot, which keeps results
bitwise independent of where an expert happens to lie.

Layers may differ: those of a pruned model in the experts' width, those of a mixed quantisation in
their type. Within a layer all experts are alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

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


@dataclass(frozen=True)
class Layouts:
    """The blobs of all experts of a model.

    Attributes:
        of_layer: (layers,) of an expert of each layer.
        experts: E, experts of a layer.

    """

    of_layer: tuple[Layout, ...]
    experts: int

    def of(self, key: int) -> Layout:
        """Layout of a key."""
        return self.of_layer[key // self.experts]

    @property
    def num_keys(self) -> int:
        """Experts of all layers."""
        return len(self.of_layer) * self.experts

    @cached_property
    def largest_bytes(self) -> int:
        """Bytes of the largest blob."""
        return max(layout.blob_bytes for layout in self.of_layer)

    @property
    def num_bytes(self) -> int:
        """Bytes of all blobs together."""
        return self.experts * sum(layout.blob_bytes for layout in self.of_layer)


def read_layouts(moe: MoeModel) -> Layouts:
    """Lay out the experts of a model.

    Raises:
        SpecmdError: the experts are not plain fused tensors.

    """
    found = tuple(_layout_of(layer.experts, layer.name) for layer in moe.layers)
    return Layouts(found, moe.num_experts)


def place(parts: Iterable[tuple[str, tuple[int, ...], torch.dtype]]) -> Layout:
    """Lay out tensors of some names, shapes and types in a blob, one after the other."""
    pieces: list[Piece] = []
    end = 0
    for name, shape, dtype in parts:
        size = math.prod(shape) * dtype.itemsize
        pieces.append(Piece(name, shape, dtype, end, size))
        end += -(-size // TENSOR_ALIGNMENT) * TENSOR_ALIGNMENT
    blob = -(-end // BLOB_ALIGNMENT) * BLOB_ALIGNMENT
    return Layout(tuple(pieces), blob, sum(piece.num_bytes for piece in pieces))


def expert_tensors(experts: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of an `experts` module that have a first axis over experts."""
    count = count_experts(experts)
    return {
        name: parameter
        for name, parameter in experts.named_parameters(recurse=False)
        if parameter.dim() >= 2 and parameter.shape[0] == count
    }


def set_width(experts: nn.Module, width: int) -> None:
    """Make all experts of a layer as wide (intermediate size) as that, their values on `meta`."""
    flags: Any = experts
    tensors = expert_tensors(experts)
    down = tensors["down_proj"]
    old = int(down.shape[-2 if flags.is_transposed else -1])
    for name, tensor in tensors.items():
        shape = list(tensor.shape)
        if not name.startswith("down_proj"):
            axis = -2 if tensor.dim() == 3 and not flags.is_transposed else -1
            shape[axis] = shape[axis] // old * width
        elif tensor is down:
            shape[-2 if flags.is_transposed else -1] = width
        made = torch.empty(shape, dtype=tensor.dtype, device="meta")
        experts._parameters[name] = nn.Parameter(made, requires_grad=False)


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
    return place((part, tuple(tensor.shape[1:]), tensor.dtype) for part, tensor in tensors.items())
