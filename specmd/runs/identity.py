"""Where a number comes from: the identity of a run, and the circumstances of its making.

The *identity* is a hash of everything that decides the numbers: what the trace says, the resolved
configuration, the contents of the hardware profile and the model shape, and the source of every
module and policy that takes part. Change any of them and the run is another run; a sweep resumes by
looking for a file of that name. The *provenance* is what is good to know and decides nothing:
commit, versions, machine, command line. Neither holds a path of the machine it was made on.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import specmd
from specmd.hardware.profile import load_profile
from specmd.hardware.shape import load_shape
from specmd.policy.registry import AXES, choose
from specmd.runs.options import RunConfig
from specmd.runs.resolve import expert_bytes_of
from specmd.runs.run import SCHEMA
from specmd.trace import Trace
from specmd.trace.header import VERSION as TRACE_VERSION

# Modules whose source decides the numbers of a simulated run.
_DECISIVE = ("core", "hardware", "policy", "runs", "simulation", "trace")
_PACKAGES = ("numpy", "numba", "pydantic", "pandas", "torch")
_HERE = Path(specmd.__file__).parent


def run_id(trace: Trace, config: RunConfig, *, bounds: bool, training: Trace | None = None) -> str:
    """Hash the inputs of a simulated run into 24 hexadecimal digits.

    `config.capacity` is left out: it is how `config.capacity_slots` was spelled. The profile and
    the shape count by what they say, not by where they lie.
    """
    policies = {axis: choose(axis, getattr(config, axis)).entry.cls for axis in AXES}
    inputs = {
        "schema": SCHEMA,
        "trace": trace.digest,
        "expert_bytes": expert_bytes_of(trace.header, config.shape),
        "training": training.digest if training else None,
        "config": config.model_dump(mode="json", exclude={"capacity", "profile", "shape"}),
        "hardware": hardware_digest(config.profile, config.shape),
        "bounds": bounds,
        "source": source_digest(),
        "policies": {axis: _file_digest(_module_file(cls)) for axis, cls in policies.items()},
    }
    return digest(inputs)


def digest(inputs: dict[str, Any]) -> str:
    """Hash what can be written as JSON into 24 hexadecimal digits."""
    text = json.dumps(inputs, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def hardware_digest(profile: str | None, shape: str | None) -> str:
    """Hash what a profile and a shape say, wherever they are read from."""
    said = {
        "profile": load_profile(profile).model_dump(mode="json") if profile else None,
        "shape": load_shape(shape).model_dump(mode="json") if shape else None,
    }
    return digest(said)


@cache
def source_digest() -> str:
    """Hash the version and the source of the modules that decide a simulated run's numbers."""
    hasher = hashlib.blake2b(specmd.__version__.encode(), digest_size=12)
    for name in _DECISIVE:
        place = _HERE / name
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            if file.is_file():
                hasher.update(f"{file.relative_to(_HERE).as_posix()} ".encode())
                hasher.update(_file_digest(str(file)).encode())
    return hasher.hexdigest()


def provenance(
    config: RunConfig, trace_digest: str, argv: Sequence[str] | None = None
) -> dict[str, Any]:
    """Describe the making of a run: code, versions, machine, command line, seeds, inputs."""
    return {
        "specmd": specmd.__version__,
        **_checkout(),
        "source_digest": source_digest(),
        "run_schema": SCHEMA,
        "trace_schema": TRACE_VERSION,
        "trace_digest": trace_digest,
        "seed": config.seed,
        "argv": [without_paths(argument) for argument in (sys.argv if argv is None else argv)],
        "python": platform.python_version(),
        "platform": platform.system(),
        "machine": platform.machine(),
        "packages": _versions(),
    }


def without_paths(argument: str) -> str:
    """Reduce an absolute path in an argument (`/home/me/x.npz`, `--out=/tmp/x`) to its name."""
    option, equals, value = argument.partition("=")
    if equals and not _is_absolute(option):
        return f"{option}={without_paths(value)}"
    return PurePath(argument).name if _is_absolute(argument) else argument


def _is_absolute(text: str) -> bool:
    return PurePath(text).is_absolute() or text.startswith("~")


@cache
def _checkout() -> dict[str, Any]:
    """Commit and dirty flag, where the package runs from a checkout of its own repository."""
    root = _HERE.parent
    if not (root / ".git").exists() or not (root / "pyproject.toml").is_file():
        return {"commit": None, "dirty": None}
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit or None, "dirty": None if changes is None else bool(changes)}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            ["git", "-C", str(root), *arguments],  # noqa: S607 - whichever git is installed
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@cache
def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _module_file(cls: type) -> str:
    return str(sys.modules[cls.__module__].__file__)


@cache
def _file_digest(file: str) -> str:
    try:
        return hashlib.blake2b(Path(file).read_bytes(), digest_size=12).hexdigest()
    except OSError:  # run from a zip archive: the version must do
        return ""
