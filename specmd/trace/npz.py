"""Reading and writing npz files that one did not necessarily make oneself.

An npz is a zip of npy members. numpy's own loader trusts it: the directory may declare sizes that
the members do not have, a tiny file may unpack to terabytes, a header may be endless, an array may
be a pickle that runs code. Here every declared size is compared with the others *before* memory is
taken for it, and everything that can be wrong becomes one line naming the file.

Members are written uncompressed and aligned to 64 bytes, so that a large array can be mapped from
the file instead of being read; the modification time is fixed, so equal content gives equal bytes.
"""

from __future__ import annotations

import mmap
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO

import numpy as np

from specmd.errors import SpecmdError
from specmd.files import replacing
from specmd.trace.trace import Array, byte_chunks

ALIGNMENT = 64
MAX_RATIO = 100
"""A member that unpacks to more than this times its size, and to more than 64 MiB, is refused."""
_RATIO_FREE_BYTES = 1 << 26
_MAX_MEMBERS = 256
_LOCAL_HEADER_BYTES = 30
_ZIP64_EXTRA_BYTES = 20
_BLOCK_BYTES = 1 << 20
_PADDING_ID = 0xD935
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError)

_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True)
class Member:
    """One array of an archive, as declared by its npy header and checked against the directory."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    fortran: bool
    offset: int
    """Bytes of the npy header in front of the data."""
    info: zipfile.ZipInfo

    @property
    def nbytes(self) -> int:
        """Bytes of the array's data."""
        return self.info.file_size - self.offset


class Archive:
    """An open npz file whose members have been checked; use `open_archive`."""

    def __init__(self, path: Path, file: BufferedReader, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._file = file
        self._zip = archive
        size = os.fstat(file.fileno()).st_size
        infos = archive.infolist()
        if len(infos) > _MAX_MEMBERS:
            raise SpecmdError(f"{path}: {len(infos)} members in the archive is not a trace")
        self.members: dict[str, Member] = {}
        for info in infos:
            if not info.filename.endswith(".npy"):
                archive.open(info).close()  # the name stands twice: a damaged one is seen
                continue
            name = info.filename.removesuffix(".npy")
            if name in self.members:
                raise SpecmdError(f"{path}: member '{name}' occurs twice: the file is damaged")
            self.members[name] = self._inspect(name, info, size)

    def _inspect(self, name: str, info: zipfile.ZipInfo, file_bytes: int) -> Member:
        if info.flag_bits & 1:
            raise SpecmdError(f"{self.path}: member '{name}' is encrypted: save it without")
        if info.header_offset + info.compress_size > file_bytes:
            raise SpecmdError(f"{self.path}: truncated inside '{name}': copy or record it again")
        stored = info.compress_type == zipfile.ZIP_STORED
        if stored and info.compress_size != info.file_size:
            raise SpecmdError(f"{self.path}: member '{name}' declares two sizes: file is damaged")
        if info.file_size > max(_RATIO_FREE_BYTES, MAX_RATIO * info.compress_size):
            raise SpecmdError(
                f"{self.path}: member '{name}' would unpack {info.compress_size:,} bytes to "
                f"{info.file_size:,}: refused; save it without compression"
            )
        with self._zip.open(info) as data:
            version = np.lib.format.read_magic(data)
            if version not in _READERS:
                raise SpecmdError(f"{self.path}: member '{name}' has npy version {version}")
            try:
                with warnings.catch_warnings(action="ignore"):  # of headers from Python 2
                    shape, fortran, dtype = _READERS[version](data)
            except _DAMAGE:
                raise
            except Exception as error:  # it is a Python literal: parsing it may raise anything
                raise ValueError(f"the npy header of '{name}' cannot be parsed") from error
            offset = data.tell()
        if dtype.hasobject:
            raise SpecmdError(
                f"{self.path}: member '{name}' holds pickled objects, which can run code: refused; "
                f"save it as a plain numeric array"
            )
        count = 1
        for extent in shape:
            if extent < 0:
                raise SpecmdError(f"{self.path}: member '{name}' has a negative shape {shape}")
            count *= extent
        if offset + count * dtype.itemsize != info.file_size:
            raise SpecmdError(
                f"{self.path}: member '{name}' declares shape {shape} of {dtype} but holds "
                f"{info.file_size - offset:,} bytes: the file is damaged"
            )
        return Member(name, dtype, shape, fortran, offset, info)

    def read(self, name: str) -> Array:
        """Return member `name`, read and checked against its CRC."""
        member = self.members[name]
        flat = np.empty(member.nbytes, dtype=np.uint8)
        if member.info.compress_type == zipfile.ZIP_STORED:
            self._read_stored(member, flat.data)
        else:
            self._read_packed(member, flat.data)
        array: Array = flat.view(member.dtype)
        if member.fortran:
            array = np.ascontiguousarray(array.reshape(member.shape[::-1]).T)
        array = array.reshape(member.shape)
        return array.astype(member.dtype.newbyteorder("="), copy=False)

    def map(self, name: str) -> Array:
        """Return member `name` mapped from the file, read-only and unread; else as `read` does."""
        member = self.members[name]
        start = self._data_start(member) + member.offset
        plain = member.info.compress_type == zipfile.ZIP_STORED and not member.fortran
        if not plain or start % member.dtype.alignment or not member.dtype.isnative:
            return self.read(name)
        whole = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.ndarray(member.shape, member.dtype, buffer=whole, offset=start)

    def _data_start(self, member: Member) -> int:
        self._file.seek(member.info.header_offset)
        local = self._file.read(_LOCAL_HEADER_BYTES)
        name_bytes, extra_bytes = struct.unpack_from("<HH", local, 26)
        return int(member.info.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes)

    def _read_stored(self, member: Member, into: memoryview) -> None:
        # Straight into the array, the CRC taken while a block is still in the processor's cache:
        # twice as fast as going through zipfile.
        self._file.seek(self._data_start(member))
        crc = zlib.crc32(self._file.read(member.offset))
        for start in range(0, len(into), _BLOCK_BYTES):
            block = into[start : start + _BLOCK_BYTES]
            if self._file.readinto(block) != len(block):
                raise EOFError(f"'{member.name}' ends early")
            crc = zlib.crc32(block, crc)
        if crc != member.info.CRC:
            raise zipfile.BadZipFile(f"bad CRC-32 in '{member.name}'")

    def _read_packed(self, member: Member, into: memoryview) -> None:
        with self._zip.open(member.info) as data:
            data.read(member.offset)
            for start in range(0, len(into), _BLOCK_BYTES):
                block = into[start : start + _BLOCK_BYTES]
                block[:] = data.read(len(block))
            data.read(1)  # reaching the end is what compares the CRC


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open an npz file; whatever is wrong with it becomes a `SpecmdError` naming it."""
    try:
        if not path.exists():
            raise SpecmdError(f"{path}: no such file")
        if path.is_dir():
            raise SpecmdError(f"{path}: is a directory; name the trace file inside it")
        if not path.is_file():
            raise SpecmdError(f"{path}: not a regular file")
        with path.open("rb") as file:
            start = file.read(4)
            if not start:
                raise SpecmdError(f"{path}: the file is empty: copy or record it again")
            if not start.startswith(b"PK"):
                raise SpecmdError(f"{path}: not an npz file; other formats need `specmd import`")
            if not zipfile.is_zipfile(file):
                raise SpecmdError(f"{path}: truncated or damaged: copy or record it again")
            with zipfile.ZipFile(file) as archive:
                yield Archive(path, file, archive)
    except OSError as error:
        raise SpecmdError(f"{path}: cannot be read: {error.strerror or error}") from error
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:160]
        raise SpecmdError(f"{path}: damaged ({reason}): copy or record it again") from error


def write_archive(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays as an npz file, whole or not at all.

    Raises:
        SpecmdError: the file cannot be written.

    """
    if not path.parent.is_dir():
        raise SpecmdError(f"{path}: its folder does not exist; create {path.parent} first")
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            _write_member(archive, file, name, array)


def _write_member(archive: zipfile.ZipFile, file: IO[bytes], name: str, array: Array) -> None:
    info = zipfile.ZipInfo(f"{name}.npy")
    start = file.tell() + _LOCAL_HEADER_BYTES + len(info.filename) + _ZIP64_EXTRA_BYTES + 4
    padding = -start % ALIGNMENT
    info.extra = struct.pack("<HH", _PADDING_ID, padding) + bytes(padding)
    with archive.open(info, "w", force_zip64=True) as member:
        head = {
            "descr": array.dtype.newbyteorder("<").str,
            "fortran_order": False,
            "shape": array.shape,
        }
        np.lib.format.write_array_header_1_0(member, head)
        for chunk in byte_chunks(array):
            member.write(chunk)
