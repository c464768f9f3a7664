"""The host link, measured with the mover and the link that a live run uses.

Transfers of n bytes, k of them asked for at once on an idle link, take `wake + k (latency + n /
bandwidth)`: waking happens once, latency with every transfer. Sizes around that of an expert and
one large enough to be all bandwidth, each for several k, are fitted so that relative errors are
small.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from specmd.calibration.fit import fit_nonnegative
from specmd.live.links.link import Link
from specmd.live.slots import Slots
from specmd.live.transfer import Transfer
from specmd.live.transfers import Mover
from specmd.models.layout import Layout, Layouts, Piece

Floats = npt.NDArray[np.float64]

COUNTS = (1, 2, 4)
LARGE_BYTES = 16 << 20
_PAUSE_S = 0.002  # between two measurements: the link falls asleep
_BUDGET_S = 1.0  # for one size


@dataclass(frozen=True)
class LinkFigures:
    """What was measured and fitted.

    Attributes:
        bytes_per_s: bandwidth.
        latency_s: of each transfer.
        wake_s: once after a pause.
        times: (bytes, transfers, median seconds) as measured.
        misfit: median relative error of the fit.

    """

    bytes_per_s: float
    latency_s: float
    wake_s: float
    times: list[tuple[int, int, float]]
    misfit: float


def measure_link(device: torch.device, expert_bytes: int, chunk_bytes: int) -> LinkFigures:
    """Measure the link to a device around the size of an expert."""
    small, large = max(4096, expert_bytes // 4), max(4 * expert_bytes, LARGE_BYTES)
    sizes = sorted({size // 64 * 64 for size in (small, expert_bytes, large)})
    times = [
        (size, count, seconds)
        for size in sizes
        for count, seconds in _time_size(device, size, chunk_bytes).items()
    ]
    return fit_link(times)


def fit_link(times: list[tuple[int, int, float]]) -> LinkFigures:
    """Fit `wake + k (latency + n / bandwidth)` to (n, k, seconds); none of the three below 0."""
    table = np.array([[1.0, k, k * n] for n, k, _ in times])
    seconds = np.array([t for _, _, t in times])
    solution = fit_nonnegative(table / seconds[:, None], np.ones(len(times)), needed=(2,))
    predicted = table @ solution
    wake_s, latency_s, s_per_byte = solution.tolist()
    return LinkFigures(
        bytes_per_s=1 / s_per_byte,
        latency_s=latency_s,
        wake_s=wake_s,
        times=times,
        misfit=float(np.median(np.abs(predicted / seconds - 1))),
    )


def _time_size(device: torch.device, size: int, chunk_bytes: int) -> dict[int, float]:
    """Median seconds for each number of transfers of one size."""
    piece = Piece("bytes", (size,), torch.uint8, 0, size)
    layouts = Layouts((Layout((piece,), size, size),), 2 * max(COUNTS))
    slots = Slots(layouts, [max(COUNTS)], 1, device, canary=False)
    link = _make_link(slots, chunk_bytes)
    store = _Blobs(layouts, pinned=link.needs_pinned)
    mover = Mover(link, store, slots, chunk_bytes=chunk_bytes)
    mover.start()
    try:
        found: dict[int, float] = {}
        for count in COUNTS:
            taken: list[float] = []
            until = time.perf_counter() + _BUDGET_S / len(COUNTS)
            while len(taken) < 5 or (len(taken) < 60 and time.perf_counter() < until):
                time.sleep(_PAUSE_S)
                taken.append(_time_once(mover, slots, count))
            found[count] = statistics.median(taken)
        return found
    finally:
        mover.stop()
        slots.close()


def _time_once(mover: Mover, slots: Slots, count: int) -> float:
    start = time.perf_counter()
    with mover.lock:
        waiting = [
            mover.queue(Transfer(key, slots.assign(key, key), demanded=True))
            for key in range(count)
        ]
    last = None
    while waiting:
        last = mover.wait_for_any(waiting)
        waiting.remove(last)
    if last is not None and not mover.link.reached(last.ready):
        mover.link.synchronise(last.ready, mover.timeout_s)
    return time.perf_counter() - start


def _make_link(slots: Slots, chunk_bytes: int) -> Link:
    if slots.buffer.device.type == "cpu":
        from specmd.live.links.host import HostLink

        return HostLink(slots)
    from specmd.live.links.accelerator import AcceleratorLink

    return AcceleratorLink(slots, chunk_bytes)


class _Blobs:
    """An expert store of plain bytes."""

    def __init__(self, layouts: Layouts, *, pinned: bool) -> None:
        self.layouts, self.num_keys = layouts, layouts.num_keys
        blobs = torch.ones((layouts.num_keys, layouts.largest_bytes), dtype=torch.uint8)
        self._blobs = blobs.pin_memory() if pinned else blobs
        self.pinned_bytes = self.locked_bytes = blobs.numel() if pinned else 0

    def read(self, key: int, start: int, stop: int) -> Tensor:
        """Bytes of a key."""
        return self._blobs[key][start:stop]

    def whole(self, key: int) -> Tensor:
        """All bytes of a key."""
        return self._blobs[key]

    def is_pinned(self, key: int) -> bool:
        """All or none are."""
        return self.pinned_bytes > 0

    def close(self) -> None:
        """Nothing to let go of."""
