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
    found = facts()
    if form == "json":
        import json

        typer.echo(json.dumps(found, indent=1))
        return
    width = max(map(len, found))
    for name, value in found.items():
        typer.echo(f"{name:<{width}}  {value}")


def facts() -> dict[str, str]:
    """Versions, processor, memory, GPUs, by name."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from specmd import __version__
    from specmd.core.specialise import cache_home
    from specmd.hardware import machine

    memory = machine.memory_bytes()
    said = {
        "specmd": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": machine.processor(),
        "cores": str(machine.cores()),
        "memory": "unknown" if memory is None else f"{memory / 2**30:.1f} GiB",
    }
    found, why = machine.gpus()
    if why:
        said["gpu"] = f"none seen ({why})"
    for index, gpu in enumerate(found):
        said["driver"] = gpu["driver"]
        said[f"gpu {index}"] = f"{gpu['name']}, {gpu['memory_bytes'] / 2**30:.1f} GiB"
        if "pcie_max_generation" in gpu:
            link = f"PCIe {gpu['pcie_max_generation']}.0 x{gpu['pcie_max_width']}"
            said[f"gpu {index}"] += f", {link}"
    for name in _PACKAGES:
        try:
            said[name] = version(name)
        except PackageNotFoundError:
            said[name] = "not installed"
    home = cache_home()
    state = "" if home.is_dir() else " (not there yet)"
    said["kernel cache"] = f"{home}{state}"
    return said
