"""`specmd env`: facts about this machine and installation, to paste into an issue."""

from __future__ import annotations

from pathlib import Path
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
    "huggingface_hub",
    "pyarrow",
    "nvidia-ml-py",
)


def env(
    form: Annotated[
        Literal["table", "json"], typer.Option("--format", help="Output format.")
    ] = "table",
) -> None:
    """Print a block about this machine to paste into an issue.

    The fence keeps its columns where Markdown is read; no path in it names you.
    """
    found = facts()
    if form == "json":
        import json

        typer.echo(json.dumps(found, indent=1))
        return
    width = max(map(len, found))
    lines = (f"{name:<{width}}  {value}" for name, value in found.items())
    typer.echo("\n".join(["```text", *lines, "```"]))


def facts() -> dict[str, str]:
    """Versions, processor, memory, GPUs, by name."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from specmd import __version__
    from specmd.core.specialise import cache_home
    from specmd.hardware import machine

    memory = machine.memory_bytes()
    said = {
        "specmd": f"{__version__}{_commit()}",
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
    place = Path("~") / home.relative_to(Path.home()) if home.is_relative_to(Path.home()) else home
    said["kernel cache"] = f"{place}{state}"
    return said


def _commit() -> str:
    """Say of which commit a checkout is, and whether it was edited."""
    from specmd.runs.identity import checkout

    found = checkout()
    if not found["commit"]:
        return ""
    return f" (commit {found['commit'][:12]}{', edited' if found['dirty'] else ''})"
