"""An experiment, written down as a TOML file: what is run, under which options, and what is not.

    traces = ["../traces/some.npz"]     # simulated
    models = ["tiny"]                   # run live on the prompts of [live], as by `specmd run`
    follow = ["../traces/some.npz"]     # run live by random weights, as by `specmd run --trace`
    out = "../results/some"

    [grid]                              # or several: [[grid]]
    evict = ["lru", "least_stale:order=cycle"]
    capacity = ["5%", "10%"]
    profile = ["rtx4090"]

    [[exclude]]                         # what matches all of a table is left out
    evict = "least_stale*"
    capacity = ["10%"]

    [live]
    repetitions = 5
    resources = [{ H100 = 1 }, { T4 = 1 }]    # of a cluster's workers: on each of them

Paths are relative to the file, so that it means the same wherever it is started from. Names of the
grid are those of the command line's options, which override it. Live runs take the options that a
live run has; what says how a trace is composed and the seed belong to their workload as well.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from specmd.errors import SpecmdError, unknown
from specmd.hardware.profile import read_toml
from specmd.runs.resolve import Exclusion, Grid
from specmd.trace.hub import on_hub


class Live(BaseModel):
    """How live runs are made; the names are those of the options of `specmd run`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: str = Field(default="builtin", description="JSON Lines, or builtin")
    domain: str | None = None
    max_new_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=0.8, ge=0)
    layers: int | None = Field(default=None, ge=1, description="of followed traces")
    dtype: str | None = None
    experts: Literal["host", "disk"] = "host"
    scratch: Path | None = Field(default=None, description="where experts=disk of a trace are made")
    device: str | None = None
    link: Literal["auto", "cpu", "accelerator"] = "auto"
    throttle: tuple[str, ...] = Field(default=("none",), min_length=1)
    prefill: Literal["waves", "bypass", "double_buffer"] = "waves"
    deterministic: bool = False
    pinned_budget: str | None = None
    threads: int | None = Field(default=None, ge=1)
    repetitions: int = Field(default=3, ge=1)
    warmup_runs: int = Field(default=1, ge=0)
    quality: bool = False
    resources: tuple[dict[str, float], ...] = Field(
        default=({},), min_length=1, description="of dask workers; each run once on each of them"
    )

    @field_validator("throttle", "resources", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str | dict) else given


class Experiment(BaseModel):
    """What a sweep needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    traces: tuple[Path, ...] = Field(default=(), description="trace files, simulated")
    models: tuple[str, ...] = Field(default=(), description="run live: tiny, folders, hub names")
    follow: tuple[Path, ...] = Field(default=(), description="trace files, followed live")
    out: Path | None = Field(default=None, description="folder of the results")
    training: Path | None = Field(default=None, description="trace for policies fitted beforehand")
    plugin: tuple[Path, ...] = Field(default=(), description="files or folders with more policies")
    bounds: bool = Field(default=True, description="whether to compute the bounds")
    grid: tuple[Grid, ...] = Field(default=(Grid(),), min_length=1, description="one, or several")
    exclude: tuple[Exclusion, ...] = Field(default=(), description="runs that are left out")
    live: Live = Live()

    @field_validator("grid", "exclude", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        return (given,) if isinstance(given, dict) else given

    def given(self) -> list[dict[str, Any]]:
        """Return the options of each grid that were written down."""
        return [{name: getattr(grid, name) for name in grid.model_fields_set} for grid in self.grid]


_KEYS: dict[str, type[BaseModel]] = {"grid": Grid, "exclude": Exclusion, "live": Live}


def _wrong(item: ErrorDetails) -> str:
    """Say what is wrong with a field; nothing of a list that is short of what is wrong in it."""
    where = ".".join(map(str, item["loc"])) or "file"
    if item["type"] == "extra_forbidden":
        table = _KEYS.get(str(item["loc"][0]), Experiment) if item["loc"][1:] else Experiment
        return f"{where}: {unknown('key', str(item['loc'][-1]), table.model_fields)}"
    if item["type"] == "too_short" and item["loc"] == ("grid",):
        return ""
    return f"{where}: {item['msg'].removeprefix('Value error, ')}"


def read_experiment(path: Path) -> Experiment:
    """Read and validate a file; raises SpecmdError naming it and every field that is wrong."""
    data = read_toml(path, "experiment")
    try:
        found = Experiment.model_validate(data)
    except ValidationError as error:
        found_wrong = dict.fromkeys(filter(None, map(_wrong, error.errors())))
        details = "; ".join(found_wrong) or "grid: give at least one"
        raise SpecmdError(f"{path}: invalid experiment: {details}") from None
    folder = path.parent

    def beside(each: Path | None) -> Path | None:
        return each if each is None or on_hub(each) else folder / each

    def as_text(each: str) -> str:
        return str(folder / each) if os.path.exists(folder / each) else each  # noqa: PTH110 - of any text

    live = {"prompts": as_text(found.live.prompts), "scratch": beside(found.live.scratch)}
    return found.model_copy(
        update={
            "traces": tuple(each if on_hub(each) else folder / each for each in found.traces),
            "models": tuple(map(as_text, found.models)),
            "follow": tuple(each if on_hub(each) else folder / each for each in found.follow),
            "plugin": tuple(folder / each for each in found.plugin),
            "out": beside(found.out),
            "training": beside(found.training),
            "live": found.live.model_copy(update=live),
        }
    )
