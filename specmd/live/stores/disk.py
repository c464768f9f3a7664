"""Reading from a disk past the operating system's cache, which would else be an unmanaged tier.

Where the file system allows it (`O_DIRECT`), bytes go from the disk to a page-aligned buffer and
nowhere else. Such reads begin and end at multiples of 4 KiB, so what is wanted is copied out of the
buffer. Elsewhere the system reads as it likes and is told at once to forget what it has kept
(`posix_fadvise`, DONTNEED): then it may still have read ahead.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from specmd.errors import SpecmdError

ALIGNMENT = 4096


class Extent(NamedTuple):
    """A part of an expert's blob as it lies in a file."""

    at: int  # first byte in the blob
    file: Path
    offset: int  # first byte in the file
    size: int


class UncachedFiles:
    """Files that are read past the system's cache.

    Args:
        files: to be opened.

    Attributes:
        way: "O_DIRECT" or "fadvise".

    Raises:
        SpecmdError: a file cannot be opened.

    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._open: dict[Path, int] = {}
        self._buffer = mmap.mmap(-1, ALIGNMENT)
        names = list(files)
        ways = {"O_DIRECT": getattr(os, "O_DIRECT", None), "fadvise": 0}
        for self.way, flag in ways.items():
            if flag is not None and self._open_all(names, flag):
                return

    def _open_all(self, files: list[Path], flag: int) -> bool:
        """Open all files in one way; False if their file system does not know it."""
        for file in files:
            try:
                self._open[file] = os.open(file, os.O_RDONLY | flag)
                os.preadv(self._open[file], [self._buffer], 0)
            except OSError as error:
                self.close()
                if flag and not isinstance(error, FileNotFoundError):
                    return False
                why = error.strerror or error
                raise SpecmdError(f"{file}: cannot be read: {why}") from None
        return True

    def read(self, file: Path, offset: int, out: npt.NDArray[np.uint8]) -> None:
        """Fill `out`, (bytes,), with what a file holds from a byte on.

        Raises:
            SpecmdError: the file is shorter than that, or the disk fails.

        """
        opened = self._open.get(file)
        if opened is None:
            raise SpecmdError(f"{file}: is closed: leave and enter offload again")
        begin = offset // ALIGNMENT * ALIGNMENT
        stop = -(-(offset + len(out)) // ALIGNMENT) * ALIGNMENT
        if len(self._buffer) < stop - begin:
            self._buffer = mmap.mmap(-1, stop - begin)
        try:
            got = self._fill(opened, begin, stop - begin)
        except OSError as error:
            raise SpecmdError(f"{file}: cannot be read: {error.strerror or error}") from None
        skipped = offset - begin
        if got < skipped + len(out):
            raise SpecmdError(
                f"{file}: ends at byte {begin + got}, inside an expert: it was cut while in use; "
                "restore the file"
            )
        out[:] = np.frombuffer(self._buffer, np.uint8, len(out), skipped)

    def _fill(self, opened: int, begin: int, size: int) -> int:
        """Read into the buffer until it is full or the file ends; return the bytes read."""
        got = 0
        while got < size:
            part = memoryview(self._buffer)[got:size]
            count = os.preadv(opened, [part], begin + got)
            part.release()
            got += count
            if count == 0 or count % ALIGNMENT:  # the end of the file
                break
        if self.way == "fadvise":
            os.posix_fadvise(opened, begin, size, os.POSIX_FADV_DONTNEED)
        return got

    def close(self) -> None:
        """Let go of the files."""
        for opened in self._open.values():
            os.close(opened)
        self._open.clear()
