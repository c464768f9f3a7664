"""Files are written whole or not at all.

The bytes go to a new file beside the target, are flushed to the disk, and only then take its name,
which is atomic even when two processes write the same file. A full disk, or a process that is
killed, leaves what was there before.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from specmd.errors import Exit, SpecmdError


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a new binary file that takes the name `path` when the block is left without error.

    Folders are made as needed. Raises SpecmdError, of its own exit code, where the system refuses.
    """
    if path.is_dir():
        raise SpecmdError(f"{path}: is a directory; name a file to write", Exit.NOT_WRITTEN)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SpecmdError(f"{path}: cannot be written: {reason}", Exit.NOT_WRITTEN) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8; raises SpecmdError as `replacing` does."""
    with replacing(path) as file:
        file.write(text.encode())
