"""Facts about the machine: its processor, its memory, its GPUs. Nothing here needs torch."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def processor() -> str:
    """Name the processor, "unknown" where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int | None:
    """Bytes of host memory, None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


@contextmanager
def _nvml() -> Iterator[Any]:
    """Open NVML, which needs no CUDA context; yields the module."""
    import pynvml

    pynvml.nvmlInit()
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def gpus() -> tuple[list[dict[str, Any]], str]:
    """Return the facts of every NVIDIA GPU, and why there are none ("" if there are).

    Each has `name`, `uuid`, `driver`, `memory_bytes`, and where it hangs on PCIe
    `pcie_generation` and `pcie_width` as they are now (a GPU at rest may have slowed its link
    down) beside `pcie_max_generation` and `pcie_max_width`.
    """
    import pynvml

    try:
        with _nvml() as nvml:
            driver = _text(nvml.nvmlSystemGetDriverVersion())
            found = [_gpu(nvml, index, driver) for index in range(nvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        return [], str(error)
    return found, "" if found else "NVML sees no GPU"


def gpu_of_uuid(uuid: str) -> dict[str, Any]:
    """Facts of one GPU by the UUID torch gives; {} if NVML does not know it."""
    wanted = uuid.removeprefix("GPU-")
    return next((gpu for gpu in gpus()[0] if gpu["uuid"].removeprefix("GPU-") == wanted), {})


def _gpu(nvml: Any, index: int, driver: str) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    facts = {
        "name": _text(nvml.nvmlDeviceGetName(handle)),
        "uuid": _text(nvml.nvmlDeviceGetUUID(handle)),
        "driver": driver,
        "memory_bytes": int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
    }
    for name, ask in (
        ("pcie_generation", nvml.nvmlDeviceGetCurrPcieLinkGeneration),
        ("pcie_width", nvml.nvmlDeviceGetCurrPcieLinkWidth),
        ("pcie_max_generation", nvml.nvmlDeviceGetMaxPcieLinkGeneration),
        ("pcie_max_width", nvml.nvmlDeviceGetMaxPcieLinkWidth),
    ):
        try:
            facts[name] = int(ask(handle))
        except nvml.NVMLError:  # absent for GPUs that are not on PCIe
            continue
    return facts


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
