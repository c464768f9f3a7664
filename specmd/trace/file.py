"""One trace, one file: saving and loading.

The file is an npz that numpy alone can read (``numpy.load(path, allow_pickle=False)``): the member
``header`` is the JSON of `TraceHeader` as bytes, and every other member is the array of that name
in `Trace`. Nothing is compressed, because routing is close to random: zlib saves a fifth of the
space for fifty times the time. Nothing is pickled, because a trace is something people download.
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from specmd.errors import SpecmdError
from specmd.trace.checks import check_trace
from specmd.trace.header import SCHEMA, VERSION, TraceHeader
from specmd.trace.hub import located
from specmd.trace.npz import Archive, open_archive, write_archive
from specmd.trace.trace import OPTIONAL, REQUIRED, Array, Trace

MAX_HEADER_BYTES = 1 << 20
MAP_ABOVE_BYTES = 1 << 26
"""Score arrays larger than this are mapped from the file and read only where they are used."""
_SCORES = ("logits", "lookahead", "lookahead_renormalised")


def save(trace: Trace, path: str | PathLike[str]) -> Path:
    """Write a trace, with its digest in the header; the file appears whole or not at all.

    Returns:
        The path written.

    Raises:
        SpecmdError: the trace is not valid, or the file cannot be written.

    """
    target = Path(path)
    try:
        check_trace(trace)
    except SpecmdError as error:
        raise SpecmdError(f"{target}: not written, the trace is not valid: {error}") from error
    version = 1 if trace.draft_ids is None else VERSION
    header = trace.header.model_copy(update={"digest": trace.digest, "version": version})
    text = header.to_json().encode()
    if len(text) > MAX_HEADER_BYTES:
        raise SpecmdError(f"{target}: the header has {len(text):,} bytes: shorten notes or shape")
    members: dict[str, Array] = {"header": np.frombuffer(text, dtype=np.uint8)}
    write_archive(target, members | trace.arrays())
    return target


def load(path: str | PathLike[str], *, verify: bool = False) -> Trace:
    """Load and check a trace.

    Arrays are read into memory against their CRC, except score arrays above 64 MiB, which are
    mapped from the file and read only where they are used.

    Args:
        path: a file written by `save`; also one on the hub, see `specmd.trace.hub`.
        verify: also read the mapped arrays and compare the content with the header's digest now,
            and not when `Trace.digest` is first asked for.

    Raises:
        SpecmdError: the file is missing, truncated, damaged, of another or newer schema, or its
            content is not a valid trace. The message names the file.

    """
    source = located(path)
    with open_archive(source) as archive:
        header = _read_header(archive)
        missing = [name for name in REQUIRED if name not in archive.members]
        if missing:
            raise SpecmdError(f"{source}: array '{missing[0]}' is missing from the trace")
        arrays: dict[str, Any] = {}
        for name in REQUIRED + OPTIONAL:
            member = archive.members.get(name)
            if member is None:
                continue
            lazy = name in _SCORES and member.nbytes > MAP_ABOVE_BYTES and not verify
            arrays[name] = archive.map(name) if lazy else archive.read(name)
    trace = Trace(header=header, **arrays)
    object.__setattr__(trace, "file", str(source))
    try:
        check_trace(trace)
    except SpecmdError as error:
        raise SpecmdError(f"{source}: {error}") from error
    if verify and trace.digest != header.digest:
        raise SpecmdError(f"{source}: the header holds no digest to verify the content by")
    return trace


def _read_header(archive: Archive) -> TraceHeader:
    member = archive.members.get("header")
    if member is None:
        raise SpecmdError(
            f"{archive.path}: no trace header: not a SpecMD trace; convert it with `specmd import`"
        )
    if member.nbytes > MAX_HEADER_BYTES:
        raise SpecmdError(
            f"{archive.path}: the header has {member.nbytes:,} bytes, more than the "
            f"{MAX_HEADER_BYTES:,} allowed: refused"
        )
    if member.dtype != np.uint8 or len(member.shape) != 1:
        raise SpecmdError(f"{archive.path}: the header is not a row of bytes (uint8)")
    try:
        fields = json.loads(archive.read("header").tobytes())
    except (ValueError, RecursionError) as error:
        raise SpecmdError(f"{archive.path}: the header is not valid JSON: {error}") from error
    if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
        raise SpecmdError(f"{archive.path}: the header's schema is not '{SCHEMA}'")
    version = fields.get("version")
    if isinstance(version, int) and version > VERSION:
        raise SpecmdError(
            f"{archive.path}: schema version {version} is newer than the {VERSION} this SpecMD "
            f"reads: upgrade specmd-bench"
        )
    try:
        return TraceHeader.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "fields"
        raise SpecmdError(f"{archive.path}: header {where}: {first['msg']}") from error
