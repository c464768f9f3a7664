"""An experiment: a grid over traces, written down as a TOML file.

    traces = ["../traces/some.npz"]
    out = "../results/some"

    [grid]
    evict = ["lru", "least_stale:order=cycle"]
    capacity = ["5%", "10%"]
    profile = ["rtx4090"]

Paths are relative to the file, so that it means the same wherever it is started from. Names of the
grid are those of the command line's options, which override it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from specmd.errors import SpecmdError
from specmd.hardware.profile import read_toml
from specmd.runs.resolve import Grid
from specmd.trace.hub import on_hub


class Experiment(BaseModel):
    """What a sweep needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    traces: tuple[Path, ...] = Field(default=(), description="trace files")
    out: Path | None = Field(default=None, description="folder of the results")
    training: Path | None = Field(default=None, description="trace for policies fitted beforehand")
    plugin: tuple[Path, ...] = Field(default=(), description="files or folders with more policies")
    bounds: bool = Field(default=True, description="whether to compute the bounds")
    grid: Grid = Grid()

    def given(self) -> dict[str, Any]:
        """Return the options of the grid that were written down."""
        return {name: getattr(self.grid, name) for name in self.grid.model_fields_set}


def read_experiment(path: Path) -> Experiment:
    """Read and validate a file; raises SpecmdError naming it and every field that is wrong."""
    data = read_toml(path, "experiment")
    try:
        found = Experiment.model_validate(data)
    except ValidationError as error:
        details = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'file'}: "
            f"{item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        )
        raise SpecmdError(f"{path}: invalid experiment: {details}") from None
    folder = path.parent

    def beside(each: Path | None) -> Path | None:
        return each if each is None or on_hub(each) else folder / each

    return found.model_copy(
        update={
            "traces": tuple(each if on_hub(each) else folder / each for each in found.traces),
            "plugin": tuple(folder / each for each in found.plugin),
            "out": beside(found.out),
            "training": beside(found.training),
        }
    )
