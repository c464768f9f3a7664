"""Experts straight from a checkpoint: the tier for models larger than the host's memory.

A safetensors file is a table of contents and raw bytes, so it can be mapped into memory and read
like an array; the system keeps the pages it has room for. Checkpoints hold one tensor an expert and
projection (`...experts.7.gate_proj.weight`) or fused ones; either way an expert's blob is a short
list of byte ranges. They are read as they are asked for, a chunk at a time: an expert of 350 MB
that was put together first would keep a demand waiting behind all of a prefetch.
"""

from __future__ import annotations

import re
from os import PathLike

import torch
from torch import Tensor

from specmd.errors import SpecmdError
from specmd.live.stores.disk import Extent
from specmd.models.files import CheckpointFiles
from specmd.models.layout import Layouts, Piece
from specmd.models.moe import MoeModel

# The halves of a fused projection, and the names they go by.
_PARTS = {
    "gate_up_proj": (("gate_proj", "w1"), ("up_proj", "w3")),
    "up_proj": (("up_proj", "w1"),),
    "down_proj": (("down_proj", "w2"),),
}
_SINGLE = re.compile(r"(?:^|\.)layers\.(\d+)\..*\bexperts\.(\d+)\.(\w+)\.weight$")
_FUSED = re.compile(r"(?:^|\.)layers\.(\d+)\..*\bexperts\.([a-z_]+)$")


class CheckpointStore:
    """An `ExpertStore` that reads each expert from its checkpoint when it is asked for.

    Args:
        folder: of the checkpoint.
        moe: the model's MoE layers; their parameters may be on `meta`.
        layouts: of the experts.

    Raises:
        SpecmdError: an expert is not in the checkpoint, or is of another type or size.

    """

    pinned_bytes = locked_bytes = 0
    pin_failure = "experts are read from their checkpoint"

    def __init__(self, folder: str | PathLike[str], moe: MoeModel, layouts: Layouts) -> None:
        self.layouts = layouts
        self.num_keys = layouts.num_keys
        self._files = CheckpointFiles(folder)
        self._chunk = torch.empty(0, dtype=torch.uint8)  # the last that was read
        single: dict[tuple[int, int, str], str] = {}
        fused: dict[tuple[int, str], str] = {}
        for name in self._files.names():
            if found := _SINGLE.search(name):
                single[int(found[1]), int(found[2]), found[3]] = name
            elif found := _FUSED.search(name):
                fused[int(found[1]), found[2]] = name
        # Per key: (first byte in the blob, tensor name, first byte in the tensor, bytes).
        self._ranges: list[list[tuple[int, str, int, int]]] = []
        for layer, layout in zip(moe.layers, layouts.of_layer, strict=True):
            for expert in range(moe.num_experts):
                ranges: list[tuple[int, str, int, int]] = []
                for piece in layout.pieces:
                    ranges += self._find(piece, layer.index, expert, single, fused)
                self._ranges.append(ranges)

    def _find(
        self,
        piece: Piece,
        layer: int,
        expert: int,
        single: dict[tuple[int, int, str], str],
        fused: dict[tuple[int, str], str],
    ) -> list[tuple[int, str, int, int]]:
        whole = fused.get((layer, piece.name))
        if whole is not None:
            self._check_type(whole, piece)
            self._check_size(whole, self.layouts.experts * piece.num_bytes)
            return [(piece.start, whole, expert * piece.num_bytes, piece.num_bytes)]
        parts = _PARTS.get(piece.name, ())
        found: list[tuple[int, str, int, int]] = []
        size = piece.num_bytes // max(1, len(parts))
        for number, names in enumerate(parts):
            name = next(
                (single[layer, expert, n] for n in names if (layer, expert, n) in single), ""
            )
            if name:
                self._check_type(name, piece)
                self._check_size(name, size)
                found.append((piece.start + number * size, name, 0, size))
        if not found or len(found) != len(parts):
            raise SpecmdError(
                f"{self._files.folder}: {piece.name} of expert {expert} in layer {layer} is not "
                "there: give the folder of this model's own checkpoint"
            )
        return found

    def _check_type(self, name: str, piece: Piece) -> None:
        stored, wanted = self._files.dtype(name), str(piece.dtype).removeprefix("torch.")
        if stored != wanted:
            raise SpecmdError(
                f"{self._files.folder}: {name} is {stored}, the model {wanted}: load the model "
                f"with dtype='{stored}'"
            )

    def _check_size(self, name: str, num_bytes: int) -> None:
        if len(self._files.raw(name)) != num_bytes:
            raise SpecmdError(f"{self._files.folder}: {name} is of another size")

    def extents(self, key: int) -> list[Extent]:
        """Return where the parts of a key's blob lie."""
        found = []
        for at, name, first, size in self._ranges[key]:
            file, start, _ = self._files.place(name)
            found.append(Extent(at, file, start + first, size))
        return found

    def read(self, key: int, start: int, stop: int) -> Tensor:
        """Read bytes start..stop of a key's blob; valid until the next call."""
        if len(self._chunk) < stop - start:
            self._chunk = torch.zeros(stop - start, dtype=torch.uint8)
        return self._read(key, start, stop, self._chunk[: stop - start])

    def whole(self, key: int) -> Tensor:
        """Read all of a key's blob into memory of its own."""
        size = self.layouts.of(key).blob_bytes
        return self._read(key, 0, size, torch.zeros(size, dtype=torch.uint8))

    def _read(self, key: int, start: int, stop: int, chunk: Tensor) -> Tensor:
        out = chunk.numpy()
        for at, name, first, size in self._ranges[key]:
            begin, end = max(start, at), min(stop, at + size)
            if begin < end:
                part = self._files.raw(name)[first + begin - at : first + end - at]
                out[begin - start : end - start] = part
        return chunk

    def is_pinned(self, key: int) -> bool:
        """Return False: mapped memory is pageable."""
        return False

    def close(self) -> None:
        """Let go of the files."""
        self._files.close()
