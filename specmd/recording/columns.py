"""Where a recording grows: arrays that gain rows, in memory or as raw files beside the trace.

A recording may outgrow memory and may be killed at any moment. So, given a destination `T.npz`,
rows are appended to plain binary files in a folder `T.npz.partial`, one file an array, and after
every batch of rows their number is appended to the file `rows` (8 bytes, little-endian). Only rows
counted there exist: a process killed between two writes leaves at most a tail that nothing counts.
`resume` reads such a folder back; no index has to be repaired.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from specmd.errors import Exit, SpecmdError

Array = NDArray[Any]
_LAYOUT = "layout.json"
_ROWS = "rows"


class MemoryColumns:
    """Arrays that grow by rows, kept in memory."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Array]] = {}
        self.rows = 0

    def append(self, arrays: Mapping[str, Array]) -> None:
        """Add the rows of `arrays`, all of one length, the same names every time."""
        for name, array in arrays.items():
            self._parts.setdefault(name, []).append(array)
        self.rows += len(next(iter(arrays.values())))

    def arrays(self) -> dict[str, Array]:
        """Return every array whole."""
        return {name: np.concatenate(parts) for name, parts in self._parts.items()}

    def discard(self) -> None:
        """Forget everything."""
        self._parts.clear()


class FileColumns:
    """Arrays that grow by rows, kept as files in a folder; see the module's text.

    Raises:
        SpecmdError: the folder exists already (an interrupted recording), or cannot be written.

    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.folder = folder
        self.rows = 0
        self._facts = dict(facts)
        self._files: dict[str, IO[bytes]] = {}
        self._failure: SpecmdError | None = None
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise SpecmdError(
                f"{folder} holds an interrupted recording: rescue it with "
                f"specmd.recording.recover('{folder.with_suffix('')}') or delete the folder"
            ) from None
        except OSError as error:
            raise SpecmdError(f"{folder}: cannot be created: {error.strerror}") from None

    def append(self, arrays: Mapping[str, Array]) -> None:
        """Add the rows of `arrays` to their files, then count them.

        Raises:
            SpecmdError: the disk is full or gone; what was counted before stays good, and every
                later call fails the same way, because the files no longer end at one row.

        """
        if self._failure is not None:
            raise self._failure
        try:
            if not self._files:
                self._open(arrays)
            for name, array in arrays.items():
                self._files[name].write(np.ascontiguousarray(array).data)
            self.rows += len(next(iter(arrays.values())))
            self._files[_ROWS].write(self.rows.to_bytes(8, "little"))
        except OSError as error:
            self._failure = SpecmdError(
                f"{self.folder}: cannot be written after {self.rows:,} tokens: {error.strerror}",
                Exit.NOT_WRITTEN,
            )
            raise self._failure from None

    def arrays(self) -> dict[str, Array]:
        """Return every array, mapped from its file and read-only."""
        self._close()
        return resume(self.folder)[1]

    def discard(self) -> None:
        """Delete the folder."""
        self._close()
        self.delete(self.folder)

    @staticmethod
    def delete(folder: Path) -> None:
        """Delete the folder of a recording that has become a trace."""
        shutil.rmtree(folder, ignore_errors=True)

    def _open(self, arrays: Mapping[str, Array]) -> None:
        layout = {name: [a.dtype.str, list(a.shape[1:])] for name, a in arrays.items()}
        text = json.dumps({"facts": self._facts, "layout": layout})
        (self.folder / _LAYOUT).write_text(text, encoding="utf-8")
        for name in [*arrays, _ROWS]:  # unbuffered: what is written has left this process
            self._files[name] = (self.folder / name).open("wb", buffering=0)

    def _close(self) -> None:
        for file in self._files.values():
            file.close()


def partial_folder(path: str | os.PathLike[str]) -> Path:
    """Return the folder in which the recording of the trace file `path` grows."""
    target = Path(path)
    return target.with_name(target.name + ".partial")


def resume(folder: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read the facts and the counted rows of a recording's folder, whole or interrupted.

    Raises:
        SpecmdError: nothing was recorded, or the folder is not one of ours.

    """
    try:
        described = json.loads((folder / _LAYOUT).read_text(encoding="utf-8"))
        counts = (folder / _ROWS).read_bytes()
        rows = int.from_bytes(counts[: len(counts) // 8 * 8][-8:], "little")
        arrays: dict[str, Array] = {}
        for name, (kind, shape) in described["layout"].items():
            dtype = np.dtype(kind)
            if rows:
                arrays[name] = np.memmap(folder / name, dtype, "r", shape=(rows, *shape))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpecmdError(
            f"{folder}: not a recording that can be rescued ({error}); delete the folder"
        ) from None
    if not arrays:
        raise SpecmdError(f"{folder}: interrupted before the first token; delete the folder")
    return described["facts"], arrays
