"""Experts straight from a checkpoint: the tier for models larger than the host's memory.

A safetensors file is a table of contents and raw bytes, so it can be mapped into memory and read
like an array; the system keeps the pages it has room for. Checkpoints hold one tensor an expert and
projection (`...experts.7.gate_proj.weight`) or fused ones; either way an expert's blob is a short
list of byte ranges, which are put together when the expert is asked for.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from specmd.engine.layout import Layout, Piece
from specmd.errors import SpecmdError
from specmd.recorder.gates import MoeModel

Bytes = npt.NDArray[np.uint8]
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# The halves of a fused projection, and the names they go by.
_PARTS = {
    "gate_up_proj": (("gate_proj", "w1"), ("up_proj", "w3")),
    "up_proj": (("up_proj", "w1"),),
    "down_proj": (("down_proj", "w2"),),
}
_SINGLE = re.compile(r"(?:^|\.)layers\.(\d+)\..*\bexperts\.(\d+)\.(\w+)\.weight$")
_FUSED = re.compile(r"(?:^|\.)layers\.(\d+)\..*\bexperts\.([a-z_]+)$")
_KEPT_BLOBS = 4


class CheckpointFiles:
    """The tensors of a folder of safetensors files, mapped, not read.

    Raises:
        SpecmdError: there is no such file, or it is damaged.

    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder)
        files = sorted(self.folder.glob("*.safetensors"))
        if not files:
            raise SpecmdError(f"{self.folder}: no .safetensors file there")
        self._where: dict[str, tuple[Path, int, int, str, list[int]]] = {}
        self._maps: dict[Path, Bytes] = {}
        for file in files:
            self._read_contents(file)

    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._where)

    def raw(self, name: str) -> Bytes:
        """Return the bytes of a tensor, mapped."""
        file, start, stop, _, _ = self._where[name]
        if file not in self._maps:
            self._maps[file] = np.memmap(file, np.uint8, "r")
        return self._maps[file][start:stop]

    def dtype(self, name: str) -> str:
        """Name of a tensor's dtype, as torch spells it."""
        kind = self._where[name][3]
        return _DTYPES.get(kind, kind)

    def tensor(self, name: str) -> Tensor:
        """Read a tensor into memory."""
        kind = getattr(torch, self.dtype(name))
        flat = torch.from_numpy(np.array(self.raw(name)))
        return flat.view(kind).reshape(self._where[name][4])

    def close(self) -> None:
        """Let go of the files."""
        self._maps.clear()

    def _read_contents(self, file: Path) -> None:
        try:
            with file.open("rb") as opened:
                size = int.from_bytes(opened.read(8), "little")
                if size > file.stat().st_size:
                    raise ValueError("its header is longer than the file")
                contents = json.loads(opened.read(size))
            for name, facts in contents.items():
                if name != "__metadata__":
                    start, stop = facts["data_offsets"]
                    base = 8 + size
                    if base + stop > file.stat().st_size:
                        raise ValueError(f"{name} ends beyond the file")
                    place = (file, base + start, base + stop, facts["dtype"], facts["shape"])
                    self._where[name] = place
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SpecmdError(f"{file}: not a readable safetensors file: {error}") from None


class CheckpointStore:
    """An `ExpertStore` that reads each expert from its checkpoint when it is asked for.

    Args:
        folder: of the checkpoint.
        moe: the model's MoE layers; their parameters may be on `meta`.
        layout: of an expert.

    Raises:
        SpecmdError: an expert is not in the checkpoint, or is of another type or size.

    """

    pinned_bytes = 0
    pin_failure = "experts are read from their checkpoint"

    def __init__(self, folder: str | PathLike[str], moe: MoeModel, layout: Layout) -> None:
        self.layout = layout
        self.num_keys = len(moe.layers) * moe.num_experts
        self._files = CheckpointFiles(folder)
        self._kept: OrderedDict[int, Tensor] = OrderedDict()
        single: dict[tuple[int, int, str], str] = {}
        fused: dict[tuple[int, str], str] = {}
        for name in self._files.names():
            if found := _SINGLE.search(name):
                single[int(found[1]), int(found[2]), found[3]] = name
            elif found := _FUSED.search(name):
                fused[int(found[1]), found[2]] = name
        # Per key: (first byte in the blob, tensor name, first byte in the tensor, bytes).
        self._ranges: list[list[tuple[int, str, int, int]]] = []
        for layer in moe.layers:
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
                if len(self._files.raw(name)) != size:
                    raise SpecmdError(f"{self._files.folder}: {name} is of another size")
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

    def blob(self, key: int) -> Tensor:
        """Put the blob of a key together; the last few are kept for the chunks to come."""
        blob = self._kept.get(key)
        if blob is None:
            blob = torch.zeros(self.layout.blob_bytes, dtype=torch.uint8)
            out = blob.numpy()
            for at, name, start, size in self._ranges[key]:
                out[at : at + size] = self._files.raw(name)[start : start + size]
            self._kept[key] = blob
            if len(self._kept) > _KEPT_BLOBS:
                self._kept.popitem(last=False)
        return blob

    def is_pinned(self, key: int) -> bool:
        """Return False: mapped memory is pageable."""
        return False

    def close(self) -> None:
        """Let go of the files."""
        self._kept.clear()
        self._files.close()
