"""The tensors of a checkpoint, mapped into memory and read like arrays.

A safetensors file is a table of contents and raw bytes; the system keeps the pages it has room for.
"""

from __future__ import annotations

import hashlib
import json
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from specmd.errors import SpecmdError

Bytes = npt.NDArray[np.uint8]
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def folder_digest(folder: Path | None) -> str | None:
    """Hash the files of a model's folder; None for no folder.

    Files above 64 MiB count by their size and when they were changed, not by their content.
    """
    if folder is None:
        return None
    hasher = hashlib.blake2b(digest_size=12)
    for file in sorted(each for each in folder.iterdir() if each.is_file()):
        facts = file.stat()
        hasher.update(f"{file.name} {facts.st_size} ".encode())
        large = facts.st_size > 1 << 26
        hasher.update(str(facts.st_mtime_ns).encode() if large else file.read_bytes())
    return hasher.hexdigest()


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

    def place(self, name: str) -> tuple[Path, int, int]:
        """Return the file of a tensor, and the bytes there that it starts and ends before."""
        return self._where[name][:3]

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
