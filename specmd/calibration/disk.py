"""A disk, read as a live run reads it: whole experts, chunk by chunk, past the system's cache.

Reading n bytes takes `latency + n / bandwidth`. Places all over the files of a folder are read in
sizes around that of an expert, and both are fitted so that relative errors are small.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from specmd.calibration.fit import fit_nonnegative
from specmd.errors import SpecmdError
from specmd.hardware.profile import Figure, HardwareProfile, Ssd
from specmd.live.stores.disk import ALIGNMENT, UncachedFiles

_BUDGET_S = 1.5  # for one size
_LEAST, _MOST = 8, 100  # reads of one size


@dataclass(frozen=True)
class DiskFigures:
    """What was measured and fitted.

    Attributes:
        bytes_per_s: bandwidth.
        latency_s: of each expert.
        times: (bytes, median seconds) as measured.
        misfit: median relative error of the fit.
        way: how the system's cache was kept out of the way.

    """

    bytes_per_s: float
    latency_s: float
    times: list[tuple[int, float]]
    misfit: float
    way: str


def measure_disk(folder: Path, expert_bytes: int, chunk_bytes: int) -> DiskFigures:
    """Measure the disk under a folder, by the files in it that are as large as an expert.

    Raises:
        SpecmdError: there is no such folder or file, or it cannot be read.

    """
    if not folder.is_dir():
        raise SpecmdError(f"{folder}: no such folder")
    files = {file: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()}
    files = {file: size for file, size in files.items() if size >= expert_bytes}
    if not files:
        raise SpecmdError(
            f"{folder}: no file there is as large as an expert ({expert_bytes:,} bytes): name the "
            "folder of a checkpoint on the disk to be measured"
        )
    most = max(files.values())
    sizes = {max(ALIGNMENT, expert_bytes // 4), expert_bytes, min(most, 4 * expert_bytes)}
    open_files = UncachedFiles(files)
    try:
        times = [(n, _time_size(open_files, files, n, chunk_bytes)) for n in sorted(sizes)]
    finally:
        open_files.close()
    return fit_disk(times, open_files.way)


def fit_disk(times: list[tuple[int, float]], way: str) -> DiskFigures:
    """Fit `latency + n / bandwidth` to (n, seconds); neither below 0."""
    table = np.array([[1.0, n] for n, _ in times])
    seconds = np.array([t for _, t in times])
    solution = fit_nonnegative(table / seconds[:, None], np.ones(len(times)), needed=(1,))
    latency_s, s_per_byte = solution.tolist()
    misfit = float(np.median(np.abs(table @ solution / seconds - 1)))
    return DiskFigures(1 / s_per_byte, latency_s, times, misfit, way)


def _time_size(files: UncachedFiles, sizes: dict[Path, int], n: int, chunk_bytes: int) -> float:
    """Median seconds of reading n bytes at places drawn from all files that have so many."""
    chance = np.random.default_rng(n)
    able = [file for file, size in sizes.items() if size >= n]
    weights = np.array([sizes[file] for file in able], float)
    out = np.empty(n, np.uint8)
    taken: list[float] = []
    until = time.perf_counter() + _BUDGET_S
    while len(taken) < _LEAST or (len(taken) < _MOST and time.perf_counter() < until):
        file = able[int(chance.choice(len(able), p=weights / weights.sum()))]
        offset = int(chance.integers(0, sizes[file] - n + 1))
        start = time.perf_counter()
        for at in range(0, n, chunk_bytes):
            files.read(file, offset + at, out[at : at + chunk_bytes])
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def with_disk(profile: HardwareProfile, figures: DiskFigures) -> HardwareProfile:
    """Return a profile that knows a disk."""
    sizes = ", ".join(f"{size:,}" for size, _ in figures.times)
    how = f"fit over uncached reads of {sizes} bytes by {figures.way} (error {figures.misfit:.1%})"
    ssd = Ssd(
        bytes_per_s=Figure(value=figures.bytes_per_s, unit="B/s", kind="measured", source=how),
        latency_s=Figure(value=figures.latency_s, unit="s", kind="measured", source=how),
    )
    return profile.model_copy(update={"ssd": ssd})
