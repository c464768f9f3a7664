"""`specmd env`: facts about this machine and installation, to paste into an issue."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

_PACKAGES = (
    "torch",
    "numpy",
    "numba",
    "pandas",
    "pydantic",
    "typer",
    "matplotlib",
    "transformers",
    "nvidia-ml-py",
)


def env(
    form: Annotated[
        Literal["table", "json"], typer.Option("--format", help="Output format.")
    ] = "table",
) -> None:
    """Print a block about this machine to paste into an issue."""
    facts = _facts()
    if form == "json":
        import json

        typer.echo(json.dumps(facts, indent=1))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        typer.echo(f"{name:<{width}}  {value}")


def _facts() -> dict[str, str]:
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from specmd import __version__
    from specmd.kernel import cache_home

    facts = {
        "specmd": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": str(
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ),
        "memory": _memory(),
    }
    facts |= _gpus()
    for name in _PACKAGES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = "not installed"
    home = cache_home()
    state = "" if home.is_dir() else " (not there yet)"
    facts["kernel cache"] = f"{home}{state}"
    return facts


def _cpu() -> str:
    import platform
    from pathlib import Path

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _memory() -> str:
    import os

    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return "unknown"
    return f"{total / 2**30:.1f} GiB"


def _gpus() -> dict[str, str]:
    """Ask NVML, which needs no CUDA context; most machines have no GPU and no library."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return {"gpu": f"none seen ({error})"}
    try:
        facts = {"driver": _text(pynvml.nvmlSystemGetDriverVersion())}
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total / 2**30
            facts[f"gpu {index}"] = f"{_text(pynvml.nvmlDeviceGetName(handle))}, {memory:.1f} GiB"
            try:
                generation = pynvml.nvmlDeviceGetMaxPcieLinkGeneration(handle)
                width = pynvml.nvmlDeviceGetMaxPcieLinkWidth(handle)
            except pynvml.NVMLError:  # absent for GPUs that are not on PCIe
                continue
            facts[f"gpu {index}"] += f", PCIe {generation}.0 x{width}"
        return facts
    except pynvml.NVMLError as error:
        return {"gpu": f"cannot be asked ({error})"}
    finally:
        pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
