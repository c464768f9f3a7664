"""What a run says of each request, each expert and one step: arrays, in a file beside its own.

A run file holds what is read of thousands of runs at once; this is read of a few, by reports and
by whoever asks how sure a difference is. Nothing of it decides anything, and a folder that has lost
it has lost no result.
"""

from __future__ import annotations

import os
import zipfile
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from specmd.files import replacing

FOLDER = ".details"
"""Folder beside run files in which their details are."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Details:
    """Arrays of a run's counted steps; NaN and empty arrays stand for what is not known.

    Attributes:
        request_ttft_s: (requests,) NaN where no whole prefill was counted.
        request_tpot_s: (requests,) mean of the decode steps a request took part in.
        request_decode_steps: (requests,) how many those are.
        request_accesses: (requests,) of its steps; -1 where requests share steps.
        request_misses: (requests,) likewise.
        asked: (layers, experts) accesses.
        missed: (layers, experts) demand fetches, and what the host was asked to compute.
        late: (layers, experts) accesses to what was under way.
        prefetched: (layers, experts) prefetches that moved bytes.
        step: (1,) a decode step of median duration, or (0,).
        step_parts_s: (layers, parts) its time by layer and part (`specmd.runs.metrics.PARTS`); what
            is done once a step is in the first layer.

    """

    request_ttft_s: Floats
    request_tpot_s: Floats
    request_decode_steps: Ints
    request_accesses: Ints
    request_misses: Ints
    asked: Ints
    missed: Ints
    late: Ints
    prefetched: Ints
    step: Ints
    step_parts_s: Floats

    @property
    def hits(self) -> Ints:
        """Hits of each expert, (layers, experts)."""
        return np.asarray(self.asked - self.missed - self.late)


def write_details(details: Details, folder: str | os.PathLike[str], run_id: str) -> Path:
    """Write the details of a run of a folder; returns the path."""
    path = Path(folder) / FOLDER / f"{run_id}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        each.name: _small(getattr(details, each.name)) for each in fields(Details)
    }
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)
    return path


def read_details(folder: str | os.PathLike[str], run_id: str) -> Details | None:
    """Read the details of a run of a folder; None if there are none, or they are damaged."""
    path = Path(folder) / FOLDER / f"{run_id}.npz"
    with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            found = {each.name: archive[each.name] for each in fields(Details)}
        whole = {
            name: array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
            for name, array in found.items()
        }
        return Details(**whole)
    return None


def _small(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Write counts in as few bytes as they need, and seconds to seven digits."""
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if not array.size:
        return array
    low, high = int(array.min()), int(array.max())
    return array.astype(np.promote_types(np.min_scalar_type(low), np.min_scalar_type(high)))
