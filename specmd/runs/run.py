"""A run and its file: what was asked, what came out, and everything needed to trust it.

One run is one JSON file, named by the hash of its inputs, so that a sweep can be interrupted and
resumed, split over machines, and read by anything. No number in it is NaN or infinite; what is not
known is null, and `warnings` says why.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from specmd.errors import SpecmdError
from specmd.files import write_text
from specmd.runs.details import Details, read_details, write_details
from specmd.runs.metrics import METRICS
from specmd.runs.options import RunConfig
from specmd.runs.policy_metrics import flat
from specmd.trace.header import Kind

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "specmd.run/1"

Value = int | FiniteFloat | None
Metrics = dict[str, Value]
Source = Literal["simulated", "measured"]
Status = Literal["ok", "failed", "skipped"]


class OtherSchemaError(SpecmdError):
    """A run file that another version of SpecMD wrote."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TraceFacts(_Frozen):
    """What a run says of its trace; `counted_*` are what is left after the warm-up."""

    name: str
    digest: str
    model: str
    kind: Kind
    num_layers: int = Field(ge=1)
    num_experts: int = Field(ge=1)
    top_k: int = Field(ge=1)
    expert_bytes: int | None = Field(ge=0)
    tokens: int = Field(ge=0)
    steps: int = Field(ge=0)
    requests: int = Field(ge=0)
    counted_tokens: int = Field(ge=0)
    counted_steps: int = Field(ge=0)
    complete: bool
    license: str = ""
    source: str = ""


class SizeClass(_Frozen):
    """The slots for experts of one size."""

    bytes: int | None = Field(description="of an expert; None: not known")
    experts: int = Field(description="of all layers of this size")
    slots: int


class Regime(_Frozen):
    """How large the demand is beside the cache; see specmd.runs.regime."""

    layer_capacity: FiniteFloat = Field(description="slots a layer has, on average: C / L")
    r_p50: FiniteFloat = Field(description="|U| / layer_capacity, median over events")
    r_p95: FiniteFloat
    working_set_mean: FiniteFloat = Field(description="T: keys one step touches, sum of |U|")
    working_set_p50: FiniteFloat
    working_set_p95: FiniteFloat
    capacity_over_working_set: FiniteFloat = Field(description="C / mean T of decode steps")
    keys_used: int
    keys_total: int
    size_classes: tuple[SizeClass, ...] = Field(default=(), description="C by size of experts")

    @property
    def slots_bytes(self) -> int | None:
        """Bytes of all slots; None if not known."""
        sizes = [each.slots * each.bytes for each in self.size_classes if each.bytes is not None]
        return sum(sizes) if sizes else None


class Memory(_Frozen):
    """Bytes that a run needs on its device; None: not known without the model's shape."""

    slots_bytes: int
    staging_bytes: int
    weights_bytes: int | None = Field(description="of all that is no expert")
    kv_bytes: int | None = Field(description="keys and values of `context_tokens`")
    context_tokens: int
    device_bytes: int | None = Field(description="that the device has; None without a profile")

    @property
    def total_bytes(self) -> int:
        """All of it, as far as it is known."""
        known = self.slots_bytes + self.staging_bytes
        return known + (self.weights_bytes or 0) + (self.kv_bytes or 0)


class Bound(_Frozen):
    """One end to compare with, on the same trace, scope, capacity and hardware."""

    misses: int
    hit_rate: FiniteFloat | None
    ttft_s: FiniteFloat | None = None
    tpot_s: FiniteFloat | None = None
    total_s: FiniteFloat | None = None


class Bounds(_Frozen):
    """The ends every result is compared with, without prefetch; see specmd.simulation.bounds.

    `regret_misses` are misses above `belady`; `regret_share` is the same over Belady's misses.
    The distance to the best that is possible splits into `forced_gap`, what better eviction would
    save, and `bypass_gap`, what refusing to admit would save on top. Regrets of a run that
    prefetches are None: a late hit is no miss, so they would flatter it. What no lossless run can
    beat, whatever it prefetches, is `roofline_s`, seconds of all counted steps.
    """

    belady: Bound
    belady_bypass: Bound
    compulsory: Bound
    all_resident: Bound
    no_cache: Bound
    roofline_s: FiniteFloat | None = Field(default=None, description="None without a clock")
    regret_misses: int | None
    regret_share: FiniteFloat | None
    forced_gap: int | None
    bypass_gap: int

    @property
    def bypass_regret_share(self) -> float | None:
        """Misses above `belady_bypass` over its misses; None where there is no regret."""
        best = self.belady_bypass.misses
        if self.regret_misses is None or not best:
            return None
        return (self.regret_misses + self.bypass_gap) / best


class Repeated(_Frozen):
    """A time metric over the repetitions of a measured run."""

    values: list[FiniteFloat]
    mean: FiniteFloat
    median: FiniteFloat
    stdev: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat


BUSY_SHARE = 0.75  # of a core: given less, the computing thread was kept waiting by others


class Measurement(_Frozen):
    """What a measured run says beside its numbers: on what, how often, how evenly, how much moved.

    The metrics of the run are those of one repetition, the one of median total time, so that its
    parts add up; `spread` is over all counted repetitions.
    """

    device: str = Field(description="where slots and dense weights are, by name")
    device_facts: dict[str, Any] = {}
    link: Literal["cpu", "accelerator"]
    throttle_bytes_per_s: FiniteFloat | None = Field(default=None, description="None: not paced")
    throttle_latency_s: FiniteFloat | None = None
    deterministic: bool = False
    prefill: str = "waves"
    chunk_bytes: int
    compute_threads: int
    workload: dict[str, Any] = {}
    warmup_runs: int
    repetitions: int
    spread: dict[str, Repeated] = {}
    decision_digests: list[str] = Field(default=[], description="of the repetitions, each once")
    link_bytes_per_s: FiniteFloat | None = Field(default=None, description="while it carried")
    moved_bytes: int
    disk: str = Field(default="", description="how one is read past the system's cache, if it is")
    read_bytes: int = Field(default=0, description="of experts, from the disk")
    disk_bytes_per_s: FiniteFloat | None = Field(default=None, description="while it was read")
    store_bytes: int = Field(description="host memory of the experts")
    pinned_share: FiniteFloat
    pin_failure: str = ""
    slot_bytes: int = Field(description="device memory of the slots, staging included")
    dense_bytes: int = Field(description="device memory of all other weights")
    peak_device_bytes: int | None = Field(default=None, description="None on the cpu link")
    core_share: FiniteFloat | None = Field(
        default=None, description="of a core that the computing thread was given; None: a device"
    )
    routing_share: FiniteFloat | None = Field(
        default=None, description="share of the time for bringing routing to the host"
    )

    @property
    def throttle(self) -> tuple[float, float] | None:
        """Bytes per second and latency that the link was paced to, or None."""
        rate, latency_s = self.throttle_bytes_per_s, self.throttle_latency_s
        return None if rate is None or latency_s is None else (rate, latency_s)


class Run(_Frozen):
    """One run: inputs, numbers, and what qualifies them."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_name: Literal["specmd.run/1"] = Field(default="specmd.run/1", alias="schema")
    id: str = Field(pattern=r"^[0-9a-f]{16,64}$")
    source: Source = "simulated"
    label: str = Field(default="", description="how to caption its numbers: source and device")
    status: Status = "ok"
    reason: str = Field(default="", description="why a run failed or was skipped")
    config: RunConfig
    trace: TraceFacts
    metrics: Metrics = {}
    policy_metrics: dict[str, dict[str, int | float]] = Field(
        default={}, description="what policies publish of themselves, by axis and name"
    )
    per_phase: dict[str, Metrics] = {}
    per_layer: dict[str, list[Value]] = Field(default={}, description="metric: one value a layer")
    regime: Regime | None = None
    memory: Memory | None = Field(default=None, description="of simulated runs")
    locality: dict[str, Any] = {}
    bounds: Bounds | None = None
    ttft_estimate_s: FiniteFloat | None = Field(
        default=None, description="not simulated, whatever the policy: see specmd.runs.latency"
    )
    measurement: Measurement | None = Field(default=None, description="of measured runs")
    contract: dict[str, Any] = {}
    decision_digest: str = ""
    host_digest: str = Field(default="", description="of the decisions of the host tier")
    warnings: list[str] = []
    provenance: dict[str, Any] = {}

    @cached_property
    def details(self) -> Details | None:
        """What it says of each request and expert; None if that is not known.

        Of a run that was read, they are read when asked for.
        """
        folder = vars(self).get("folder")
        return None if folder is None else read_details(folder, self.id)

    def with_details(self, details: Details | None) -> Run:
        """Return the same run with its details."""
        made = self.model_copy()
        vars(made)["details"] = details
        return made

    def kept_in(self, folder: str | os.PathLike[str]) -> Run:
        """Return the same run, without its details: they are read from a folder when asked for."""
        made = self.model_copy()
        vars(made).pop("details", None)
        vars(made)["folder"] = str(folder)
        return made

    def to_json(self) -> str:
        """Return the run as JSON text, keys in declaration order; NaN is refused."""
        fields = self.model_dump(mode="json", by_alias=True)
        dense = json.dumps(fields, allow_nan=False, ensure_ascii=False)
        return msgspec.json.format(dense, indent=1)  # json's own indenting is ten times as slow

    def value(self, name: str) -> Value:
        """Return a metric, one of a policy's own as `evict.arc.target`; None if not known."""
        if name in METRICS:
            return self.metrics.get(name)
        return flat(self.policy_metrics).get(name)

    def row(self) -> dict[str, Any]:
        """Return the run as one flat row: facts, configuration, metrics, regime and bounds."""
        row: dict[str, Any] = {
            "id": self.id,
            "status": self.status,
            "reason": self.reason,
            "source": self.source,
            "trace": self.trace.name,
            "model": self.trace.model,
            **self.config.model_dump(),
            **{name: self.metrics.get(name) for name in METRICS},
        }
        for name in ("r_p50", "r_p95", "working_set_mean", "capacity_over_working_set"):
            row[name] = getattr(self.regime, name, None)
        for name in ("belady", "belady_bypass", "compulsory", "all_resident", "no_cache"):
            bound = getattr(self.bounds, name, None)
            for part in Bound.model_fields:
                row[f"{name}_{part}"] = getattr(bound, part, None)
        for name in ("roofline_s", "regret_misses", "regret_share", "forced_gap", "bypass_gap"):
            row[name] = getattr(self.bounds, name, None)
        row |= flat(self.policy_metrics)
        row["decision_digest"] = self.decision_digest
        row["host_digest"] = self.host_digest
        row["warnings"] = "; ".join(self.warnings)
        return row


def write_run(run: Run, folder: str | os.PathLike[str]) -> Path:
    """Write a run into a folder, under its id, and its details beside it; returns the path.

    Raises SpecmdError where `kept_run` does: what is there is not overwritten.
    """
    path = Path(folder) / f"{run.id}.json"
    kept_run(folder, run.id)
    if run.details is not None:
        write_details(run.details, folder, run.id)
    write_text(path, run.to_json() + "\n")
    return path


def kept_run(folder: str | os.PathLike[str], run_id: str) -> Run | None:
    """Read the result of an id from a folder; None if there is none, or none that can be read.

    Raises SpecmdError for a file that may be somebody's result and is not this one: of another
    schema than ours, or with another id inside than its name says.
    """
    path = Path(folder) / f"{run_id}.json"
    try:
        found = read_run(path)
    except OtherSchemaError:
        raise
    except SpecmdError:
        return None
    if found.id != run_id:
        raise SpecmdError(
            f"{path}: holds run {found.id}, not the one it is named after: move it out of the way"
        )
    return found


def parse_run(text: str | bytes, where: str) -> Run:
    """Read a run from JSON; raises SpecmdError naming `where` it came from."""
    try:
        fields = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SpecmdError(f"{where}: not a run file, its JSON is broken: {error}") from None
    schema = fields.get("schema") if isinstance(fields, dict) else None
    if schema != SCHEMA:
        if isinstance(schema, str) and schema.startswith("specmd.run/"):
            raise OtherSchemaError(
                f"{where}: its schema is {schema}, this SpecMD reads {SCHEMA}: upgrade "
                "specmd-bench, or move the file out of the way"
            )
        raise SpecmdError(f"{where}: not a run file: its schema is not '{SCHEMA}'")
    try:
        return Run.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "run"
        raise SpecmdError(f"{where}: not a valid run: {field}: {first['msg']}") from None


def read_run(path: str | os.PathLike[str]) -> Run:
    """Read one run file; raises SpecmdError naming the file."""
    source = Path(path)
    try:
        text = source.read_bytes()
    except OSError as error:
        raise SpecmdError(f"{source}: cannot be read: {error.strerror or error}") from None
    found = parse_run(text, str(source))
    vars(found)["folder"] = source.parent  # where its details are
    return found


def read_runs(folder: str | os.PathLike[str]) -> list[Run]:
    """Read every run of a folder, by file name; raises SpecmdError naming the first bad file."""
    source = Path(folder)
    if not source.is_dir():
        raise SpecmdError(f"{source}: no such folder of runs")
    return [read_run(path) for path in sorted(source.glob("*.json"))]


def frame(runs: Iterable[Run]) -> pd.DataFrame:
    """Return runs as a pandas frame, one row each, columns as in `Run.row`."""
    import pandas

    return pandas.DataFrame([run.row() for run in runs])


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
