"""Where a number comes from: the identity of a run, and the circumstances of its making.

The *identity* is a hash of everything that decides the numbers: what the trace says, the resolved
configuration, the contents of the hardware profile and the model shape, and the code of every
module and policy that takes part. Change any of them and the run is another run; a sweep resumes by
looking for a file of that name. Code counts by what it does: by its syntax tree, without comments
and docstrings. The *provenance* is what is good to know and decides nothing:
commit, versions, machine, command line. Neither holds a path of the machine it was made on.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePath
from typing import Any, Literal

import specmd
from specmd.core.specialise import cache_home
from specmd.errors import SpecmdError
from specmd.files import write_text
from specmd.hardware.engines import load_engine
from specmd.hardware.profile import load_profile
from specmd.hardware.shape import load_shape
from specmd.policy.registry import AXES, choose
from specmd.runs.options import RunConfig
from specmd.runs.resolve import with_sizes
from specmd.runs.run import SCHEMA
from specmd.trace import Trace
from specmd.trace.header import VERSION as TRACE_VERSION

Kind = Literal["simulated", "measured"]
CODE: dict[Kind, tuple[str, ...]] = {
    "simulated": ("core", "hardware", "policy", "runs", "simulation", "trace"),
    "measured": (
        *("core", "hardware", "policy", "runs", "simulation", "trace"),
        *("live", "measurement", "models", "recording"),
    ),
}
"""Packages of `specmd` that a run of a kind executes; policies count one by one."""

NOT_COUNTED = {
    "specmd": "its version is counted",
    "specmd.errors": "words an error",
    "specmd.files": "writes what has been decided",
    "specmd.hardware_profiles": "profiles count by what they say",
    "specmd.sweep": "starts processes",
    "specmd.sweep.executor": "starts processes",
    "specmd.sweep.jobs": "says what a process makes",
    "specmd.sweep.sweep": "lists runs",
    "specmd.models": "of a simulated run: a folder of shapes",
    "specmd.models.shapes": "shapes count by what they say",
}
"""Modules that a run loads and that decide none of its numbers, with the reason."""

SPELLED = {"capacity", "host_capacity"}
"""Options that slots were made of, which are what counts."""

_PACKAGES = ("numpy", "numba", "pydantic", "pandas", "torch")
_HERE = Path(specmd.__file__).parent


def run_id(trace: Trace, config: RunConfig, *, bounds: bool, training: Trace | None = None) -> str:
    """Hash the inputs of a simulated run into 24 hexadecimal digits.

    Capacities are left out: they are how slots were spelled. The profile and the shape count by
    what they say, not by where they lie.
    """
    inputs = {
        "schema": SCHEMA,
        "trace": trace.digest,
        "layer_bytes": with_sizes(trace.header, config.shape).layer_bytes,
        "training": training.digest if training else None,
        "config": config.model_dump(mode="json", exclude=SPELLED | {"profile", "shape"})
        | by_content(config),
        "hardware": hardware_digest(config),
        "bounds": bounds,
        "code": code(config, bounds=bounds),
    }
    return digest(inputs)


def by_content(config: RunConfig) -> dict[str, str]:
    """Spell the policies of a run so that files they read count by what is in them."""
    return {axis: choose(axis, getattr(config, axis)).content for axis in AXES}


def code(config: RunConfig, *, bounds: bool, kind: Kind = "simulated") -> dict[str, Any]:
    """Digest all code that a run executes: the packages, and its policies with their helpers."""
    chosen = [(axis, getattr(config, axis)) for axis in AXES]
    if config.host_slots is not None:
        chosen.append(("evict", config.host_evict))
    if bounds:
        chosen += [("evict", "belady"), ("evict", "lru")]
    policies = {
        f"{axis} {part.content}": policy_digest(part.entry.cls)
        for axis, name in chosen
        for part in choose(axis, name).parts
    }
    return {"source": source_digest(kind), "policies": policies}


def digest(inputs: dict[str, Any]) -> str:
    """Hash what can be written as JSON into 24 hexadecimal digits."""
    text = json.dumps(inputs, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def hardware_digest(config: RunConfig) -> str:
    """Hash what a run's profile, engine and shape say, wherever they are read from."""
    profile, shape, engine = config.profile, config.shape, config.engine
    models = (
        load_profile(profile) if profile else None,
        load_engine(engine) if engine else None,
        load_shape(shape) if shape else None,
    )
    key = tuple(map(id, models))
    if key not in _said:  # they are frozen, and kept here, so that no other gets their id
        dumped = [each and each.model_dump(mode="json") for each in models]
        said = dict(zip(("profile", "engine", "shape"), dumped, strict=True))
        _said[key] = models, digest(said)
    return _said[key][1]


_said: dict[tuple[int, ...], tuple[object, str]] = {}


@cache
def source_digest(kind: Kind = "simulated", root: Path = _HERE) -> str:
    """Hash the version and the code of the packages that a run of a kind executes.

    Parsing them takes a fifth of a second, so what very bytes came to is kept beside the kernels.
    """
    files = {
        file.relative_to(root).as_posix(): file
        for package in CODE[kind]
        for file in sorted((root / package).rglob("*.py"))
    }
    raw = {name: hashlib.blake2b(file.read_bytes()).hexdigest() for name, file in files.items()}
    kept = cache_home() / "code" / digest({"files": raw, "python": sys.version_info[:2]})
    with suppress(OSError):
        return digest({"specmd": specmd.__version__, "code": kept.read_text(encoding="utf-8")})
    code = digest({name: file_digest(file) for name, file in files.items()})
    with suppress(SpecmdError):
        write_text(kept, code)
    return digest({"specmd": specmd.__version__, "code": code})


@cache
def policy_digest(cls: type) -> str:
    """Hash the code of a policy's module and of the modules beside it that it imports."""
    found = [file_digest(file) for file in policy_files(cls)]
    return digest({"own": next(iter(found), ""), "beside it": sorted(found)})


def policy_files(cls: type) -> list[Path]:
    """Return the file of a policy, and then those of the modules beside it that it imports."""
    own = Path(str(sys.modules[cls.__module__].__file__))
    found: list[Path] = []
    names = [cls.__module__]
    while names:
        module = sys.modules.get(names.pop())
        file = Path(getattr(module, "__file__", None) or ".")
        if file not in found and file.is_file() and file.is_relative_to(own.parent):
            found.append(file)
            names += _imported(_tree(file.read_bytes()), str(getattr(module, "__package__", "")))
    return found


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield the names of modules that a module may import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = package.rsplit(".", node.level - 1)[0] if node.level else ""
            place = ".".join(filter(None, (parent, node.module)))
            yield place
            yield from (f"{place}.{each.name}" for each in node.names)


def provenance(
    config: RunConfig, trace_digest: str, argv: Sequence[str] | None = None
) -> dict[str, Any]:
    """Describe the making of a run: code, versions, machine, command line, seeds, inputs."""
    return {
        "specmd": specmd.__version__,
        **checkout(),
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
def checkout() -> dict[str, Any]:
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


@cache
def file_digest(file: Path) -> str:
    """Hash what a Python file does: its syntax tree without docstrings."""
    return _code_digest(file.read_bytes())


@cache
def _code_digest(source: bytes) -> str:
    return hashlib.blake2b(ast.dump(_tree(source)).encode(), digest_size=12).hexdigest()


def _tree(source: bytes) -> ast.AST:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        match node:
            case (
                ast.Module(body=[ast.Expr(ast.Constant(str())), *rest])
                | ast.ClassDef(body=[ast.Expr(ast.Constant(str())), *rest])
                | ast.FunctionDef(body=[ast.Expr(ast.Constant(str())), *rest])
                | ast.AsyncFunctionDef(body=[ast.Expr(ast.Constant(str())), *rest])
            ):
                node.body = rest
    return tree
