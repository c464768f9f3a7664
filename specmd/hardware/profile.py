"""Hardware profiles: what a device can do, each number with its source.

A Mixture-of-Experts model whose experts do not all fit on the device lives on four rates. Device
memory feeds the kernels (decode reads every active weight once per step, so it is bandwidth
bound), the tensor units bound wide prefills, the host link brings missing experts (one to two
orders of magnitude slower than device memory: this gap is why expert caches exist), and an SSD
may stand behind host memory. Two fixed costs, the latency of a transfer and of a kernel launch,
decide how much small pieces hurt.

A profile is one TOML file. Each number is a `Figure`: value, SI unit, where it comes from, and of
what kind that source is, because a datasheet peak, someone's measurement and our own assumption
deserve different trust. Shipped profiles are uncalibrated. Times simulated from them are neither
upper nor lower bounds: kernels do not reach the datasheet's peak rates, and launches are counted as
an eager loop makes them, which is too many for an engine that fuses kernels or captures graphs. A
profile whose numbers were measured on the machine itself, as `specmd calibrate` does, says
`calibrated = true`.
"""

from __future__ import annotations

import math
import tomllib
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from specmd.errors import SpecmdError, unknown

SCHEMA = 1
_PACKAGE = "specmd.hardware_profiles"
_UNIT_BY_SUFFIX = (
    ("_share", "share"),
    ("_launches", "1"),
    ("flops_per_s", "flop/s"),
    ("bytes_per_s", "B/s"),
    ("bytes", "B"),
    ("_s", "s"),
)
_MAY_BE_ZERO = ("s", "1")  # latencies and launches may be nought, rates and sizes may not

Kind = Literal["datasheet", "measured", "derived", "assumption", "design"]


class _Frozen(BaseModel):
    """Immutable, and strict about keys and types: a typo is an error, `true` is not 1.0."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Figure(_Frozen):
    """One number of a profile with its SI unit and its provenance.

    `kind` says what `source` is: `datasheet` (the vendor's claim, `url` required), `measured` (by
    whom and on what), `derived` (the arithmetic, from figures that are sourced), `assumption` (no
    source found; the text starts with "assumption:"), `design` (our own choice, not a fact).
    """

    value: float = Field(ge=0)
    unit: Literal["B", "B/s", "flop/s", "s", "share", "1"]
    kind: Kind
    source: str = Field(min_length=10)
    url: str | None = None

    @model_validator(mode="after")
    def _provenance(self) -> Figure:
        if math.isnan(self.value):
            raise ValueError("value is not a number")
        if self.kind == "datasheet" and not self.url:
            raise ValueError("kind 'datasheet' needs the url of the datasheet")
        if (self.kind == "assumption") != self.source.startswith("assumption:"):
            raise ValueError("kind 'assumption' and a source starting 'assumption:' go together")
        return self

    def __float__(self) -> float:
        return self.value


class Figures(_Frozen):
    """A group of figures whose units follow from their field names."""

    @model_validator(mode="after")
    def _units(self) -> Figures:
        for name in type(self).model_fields:
            figure = getattr(self, name)
            if not isinstance(figure, Figure):
                continue
            unit = next(unit for suffix, unit in _UNIT_BY_SUFFIX if name.endswith(suffix))
            if figure.unit != unit:
                raise ValueError(f"{name} is in '{figure.unit}'; convert it to '{unit}'")
            if figure.value == 0 and unit not in _MAY_BE_ZERO:
                raise ValueError(f"{name} must be larger than 0")
            if math.isinf(figure.value) and unit == "B":
                raise ValueError(f"{name} must be finite")
            if figure.value > 1 and unit == "share":
                raise ValueError(f"{name} is a share: 1 at most")
        return self


class HostLinkFigures(Figures):
    """The path from host memory to device memory.

    `bytes_per_s` is what a large copy out of pinned memory achieves, `theoretical_bytes_per_s` what
    the wires carry one way. `chunk_bytes` is the piece in which transfers are moved: a demand fetch
    waits for at most one of them.
    """

    type: Literal["pcie", "nvlink-c2c", "unified", "memory", "simulated"]
    generation: int | None = Field(default=None, ge=1, le=7)
    width: int | None = Field(default=None, ge=1, le=16)
    bytes_per_s: Figure
    theoretical_bytes_per_s: Figure
    latency_s: Figure
    chunk_bytes: Figure
    wake_s: Figure | None = None

    @model_validator(mode="after")
    def _shape(self) -> HostLinkFigures:
        if self.type == "pcie" and (self.generation is None or self.width is None):
            raise ValueError("a pcie link needs generation and width")
        if self.bytes_per_s.value > self.theoretical_bytes_per_s.value:
            raise ValueError("bytes_per_s is larger than theoretical_bytes_per_s")
        if self.chunk_bytes.value < 1 or not self.chunk_bytes.value.is_integer():
            raise ValueError("chunk_bytes must be a whole number of bytes, 1 or more")
        return self

    def describe(self) -> str:
        """Name the link for a report, e.g. 'PCIe 4.0 x16'."""
        if self.type == "pcie":
            return f"PCIe {self.generation}.0 x{self.width}"
        names = {
            "nvlink-c2c": "NVLink-C2C",
            "unified": "unified memory",
            "memory": "host memory to host memory",
        }
        return names.get(self.type, self.type)


class Stack(Figures):
    """What software adds to the roofline: seconds on top of it, whatever the number of tokens.

    Only a calibrated profile knows them: they are those of the framework, the engine and the model
    it was calibrated with. Without them, kernels are counted and charged `launch_s` each.
    `expert_s` is a call of one expert, `layer_s` the rest of one MoE layer (attention, router,
    deciding, summing), `step_s` what happens once a forward pass. What goes on beside computing
    costs, too: `resume_s` every layer that had to wait for a copy, where the host computes (its
    caches go cold), `fetch_s` every copy that was demanded, `transfer_s` every prefetch,
    `predict_s` every layer in which a prefetcher looks ahead.
    """

    expert_s: Figure
    layer_s: Figure
    step_s: Figure
    resume_s: Figure | None = None
    fetch_s: Figure | None = None
    transfer_s: Figure | None = None
    predict_s: Figure | None = None


class Attainable(Figures):
    """Shares of the peaks that kernels attain, each 1 where it is not given.

    A calibrated profile measures rates as they are attained, and has none. Those of a kind of
    engine (`specmd.hardware.engines`) stand in where a profile has neither these nor a stack.
    """

    memory_share: Figure | None = None
    flops_share: Figure | None = None
    prefill_memory_share: Figure | None = None
    prefill_flops_share: Figure | None = None


class Ssd(Figures):
    """An SSD in series before host memory: sequential reads of whole experts."""

    bytes_per_s: Figure
    latency_s: Figure


class Check(_Frozen):
    """How a calibration predicted what it was not made from, see `specmd.calibration.check`.

    `errors` are relative, simulated over measured, by configuration and metric; `spread` is half of
    the range between rounds over their median, `core_share` what the computing thread was given.
    """

    accepted: bool
    reason: str = ""
    rounds: int = Field(ge=0)
    spread: float
    core_share: float | None = None
    errors: dict[str, float] = {}


class HardwareProfile(Figures):
    """One device with its link and host; every rate a `Figure` in SI units.

    `flops_per_s` is the dense tensor rate in `flops_dtype` with fp32 accumulation, without
    structured sparsity. `launch_s` is the cost of putting one kernel on the device. The host
    computes experts at `host_flops_per_s`, where it is known, out of `host_memory_bytes_per_s`.
    """

    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    title: str
    vendor: str
    calibrated: bool
    anchored: str = Field(default="", description="the times it was fitted to, of which model")
    notes: str = ""
    memory_bytes: Figure
    memory_bytes_per_s: Figure
    flops_dtype: Literal["bf16", "fp16", "fp32"]
    flops_per_s: Figure
    launch_s: Figure
    host_memory_bytes_per_s: Figure
    host_flops_per_s: Figure | None = None
    host_link: HostLinkFigures
    attainable: Attainable | None = None
    stack: Stack | None = None
    ssd: Ssd | None = None
    check: Check | None = None

    def figures(self) -> dict[str, Figure]:
        """Every figure by its dotted path, e.g. `host_link.bytes_per_s`."""
        found: dict[str, Figure] = {}
        groups: list[tuple[str, Figures | None]] = [
            ("", self),
            ("host_link.", self.host_link),
            ("attainable.", self.attainable),
            ("stack.", self.stack),
            ("ssd.", self.ssd),
        ]
        for prefix, group in groups:
            if group is None:
                continue
            for name in type(group).model_fields:
                figure = getattr(group, name)
                if isinstance(figure, Figure):
                    found[prefix + name] = figure
        return found

    def warnings(self) -> list[str]:
        """List what a reader must know before trusting a simulated number."""
        if self.check is not None and not self.check.accepted:
            return [f"profile '{self.name}' failed its calibration: {self.check.reason}"]
        if self.calibrated:
            return []
        if self.anchored:
            return [
                f"profile {self.name} is anchored to {self.anchored}: other models and engines "
                "have other costs of software"
            ]
        return [
            f"profile {self.name} is not calibrated (`specmd calibrate`): compare policies by its "
            "times, promise nothing"
        ]

    def assumed(self) -> list[str]:
        """Paths of the figures for which no source was found."""
        return [path for path, figure in self.figures().items() if figure.kind == "assumption"]


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a TOML file; `SpecmdError` naming the file if it cannot be read or parsed."""
    return parse_toml(read_content(path, what), path, what)


def read_content(path: Path, what: str) -> bytes:
    """Read a file; `SpecmdError` naming it, and what it is, if that cannot be done."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise SpecmdError(f"{path}: no such {what}; check the path") from None
    except OSError as error:
        raise SpecmdError(f"{path}: cannot read the {what}: {error.strerror or error}") from None


def parse_toml(content: bytes, path: Path, what: str) -> dict[str, Any]:
    """Parse TOML; `SpecmdError` naming the file it came from if it is none."""
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecmdError(f"{path}: not valid TOML ({error}); fix the {what}") from None


def explain(path: Path, what: str, error: ValidationError, schema: int, found: object) -> str:
    """Turn a pydantic error into one line that names the file, the fields and the remedy."""
    if isinstance(found, int) and found > schema:
        return f"{path}: {what} schema {found} is newer than {schema}; update specmd"
    details = [
        f"{'.'.join(str(part) for part in item['loc']) or what}: {item['msg']}"
        for item in error.errors()
    ]
    return f"{path}: invalid {what}: {'; '.join(details)}; correct the file"


def read_profile(path: Path) -> HardwareProfile:
    """Read and validate one profile file; `SpecmdError` naming the file if it is wrong."""
    return _profile(path, read_content(path, "hardware profile"))


@lru_cache(maxsize=128)
def _profile(path: Path, content: bytes) -> HardwareProfile:
    """Parse a profile, once for each content: a run looks at it several times."""
    data = parse_toml(content, path, "hardware profile")
    try:
        return HardwareProfile.model_validate(data)
    except ValidationError as error:
        raise SpecmdError(
            explain(path, "hardware profile", error, SCHEMA, data.get("schema"))
        ) from None


@cache
def shipped(package: str) -> dict[str, Path]:
    """Map the stem of every TOML file of a data package to its path, sorted."""
    found = {
        Path(item.name).stem: Path(str(item))
        for item in files(package).iterdir()
        if item.name.endswith(".toml")
    }
    return dict(sorted(found.items()))


def list_profiles() -> list[str]:
    """Names of the shipped profiles, sorted."""
    return list(shipped(_PACKAGE))


def load_profile(name_or_path: str | Path) -> HardwareProfile:
    """Load a shipped profile by name, or any file whose name ends in `.toml`.

    Raises `SpecmdError` for an unknown name (with the closest ones) or an invalid file.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml"):
        return read_profile(Path(text))
    known = shipped(_PACKAGE)
    key = text.lower().replace("-", "_")
    if key not in known:
        raise unknown("hardware profile", text, known)
    return read_profile(known[key])
