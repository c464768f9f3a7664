"""Expert stores of random bytes, in memory or in a file: as a checkpoint, without one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from specmd.errors import SpecmdError
from specmd.hardware.memory import require_memory
from specmd.live.stores.disk import Extent
from specmd.live.stores.pinning import Pinned, pin
from specmd.live.stores.store import ArenaStore
from specmd.models.dummy.noise import Noise
from specmd.models.layout import Layouts


class RandomFile:
    """Every expert's bytes in a file of its own, which goes when this is closed.

    Args:
        folder: where the file is made.
        layouts: of the experts.
        seed: of the values.

    Raises:
        SpecmdError: the file cannot be written.

    """

    pinned_bytes = locked_bytes = 0

    def __init__(self, folder: Path, layouts: Layouts, *, seed: int = 0) -> None:
        self.layouts, self.num_keys = layouts, layouts.num_keys
        self._extents: list[Extent] = []
        noises = _noises(layouts, seed)
        try:
            with tempfile.NamedTemporaryFile(dir=folder, prefix="specmd-", delete=False) as file:
                self._file = Path(file.name)
                for key in range(self.num_keys):
                    layout = layouts.of(key)
                    blob = torch.zeros(layout.blob_bytes, dtype=torch.uint8)
                    for piece in layout.pieces:
                        noises[piece.dtype].fill(piece.view(blob))
                    self._extents.append(Extent(0, self._file, file.tell(), len(blob)))
                    file.write(blob.numpy().data)
                file.flush()
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            self.close()
            why = error.strerror or error
            raise SpecmdError(f"{folder}: experts cannot be written there: {why}") from None

    def extents(self, key: int) -> list[Extent]:
        """Return where a key's blob lies."""
        return [self._extents[key]]

    def read(self, key: int, start: int, stop: int) -> Tensor:
        """Read bytes of a key's blob, through the system's cache."""
        with self._file.open("rb") as file:
            file.seek(self._extents[key].offset + start)
            return torch.frombuffer(bytearray(file.read(stop - start)), dtype=torch.uint8)

    def whole(self, key: int) -> Tensor:
        """Read all of a key's blob."""
        return self.read(key, 0, self.layouts.of(key).blob_bytes)

    def is_pinned(self, key: int) -> bool:
        """Return False."""
        return False

    def close(self) -> None:
        """Remove the file."""
        if hasattr(self, "_file"):
            self._file.unlink(missing_ok=True)


class RandomStore(ArenaStore):
    """Every expert's bytes in host memory, all different, no value NaN or infinite.

    Args:
        layouts: of the experts.
        pinned_budget_bytes: how much may be locked; None is no limit, 0 nothing.
        pin: pins an arena.
        other_bytes: of memory that will be asked for after the store and must fit, too.
        seed: of the values.

    Raises:
        SpecmdError: it does not fit into memory.

    """

    def __init__(
        self,
        layouts: Layouts,
        *,
        pinned_budget_bytes: int | None = None,
        pin: Callable[[Tensor], Pinned] = pin,
        other_bytes: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(layouts, pinned_budget_bytes=pinned_budget_bytes, pin=pin)
        layer_bytes = [layouts.experts * layout.blob_bytes for layout in layouts.of_layer]
        require_memory(layer_bytes, other_bytes, "a store of experts")
        noises = _noises(layouts, seed)
        for layout in layouts.of_layer:
            for blob in self.add_layer():
                for piece in layout.pieces:
                    noises[piece.dtype].fill(piece.view(blob))


def _noises(layouts: Layouts, seed: int) -> dict[torch.dtype, Noise]:
    """Return what fills the pieces of experts, by their type."""
    pieces = chain.from_iterable(layout.pieces for layout in layouts.of_layer)
    return {dtype: Noise(seed, dtype) for dtype in dict.fromkeys(p.dtype for p in pieces)}
