"""Kinds of engines: what software adds to a device, each number with its source.

A datasheet says what a device can do; an engine attains a share of it, and every kernel it launches
costs something however little there is to compute. How many kernels, and how much each, is what
engines differ in: a loop over the experts launches a handful for each of them, a grouped kernel one
for all, a captured graph is launched as a whole. A calibrated profile has measured all this for the
engine it was calibrated with (`HardwareProfile.stack`); for any other profile one of these kinds is
assumed, and said with the result.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from specmd.errors import SpecmdError, unknown
from specmd.hardware.profile import Figure, Figures, explain, read_toml, shipped

SCHEMA = 1
_PACKAGE = "specmd.hardware.engines"
DEFAULT = "grouped"


class Engine(Figures):
    """What one kind of engine adds and attains.

    Attributes:
        expert_launches: kernels of one expert.
        layer_launches: kernels of the rest of a layer, the grouped ones of its experts included.
        step_launches: kernels of embedding and output head.
        launch_s: of a kernel; None: that of the device's profile.
        decide_s: of a layer whose experts are cached: its routing is brought to the host, which
            decides; nothing where every expert is resident.
        fetch_s: lost by computing for each expert that is demanded and copied.
        memory_share: of the peak bandwidth that reading weights attains.
        flops_share: of the peak arithmetic that a decode step attains.
        prefill_memory_share: the same, of a prefill.
        prefill_flops_share: the same, of a prefill.

    """

    schema_version: Literal[1] = Field(alias="schema")
    name: str
    title: str
    expert_launches: Figure
    layer_launches: Figure
    step_launches: Figure
    launch_s: Figure | None = None
    decide_s: Figure
    fetch_s: Figure
    memory_share: Figure
    flops_share: Figure
    prefill_memory_share: Figure
    prefill_flops_share: Figure


def list_engines() -> list[str]:
    """Names of the kinds, sorted."""
    return list(shipped(_PACKAGE))


@cache
def load_engine(name: str | None) -> Engine:
    """Load a kind by name, the default for None; `SpecmdError` for an unknown one."""
    known = shipped(_PACKAGE)
    name = name or DEFAULT
    if name not in known:
        raise unknown("engine", name, known)
    path = Path(known[name])
    data = read_toml(path, "engine")
    try:
        return Engine.model_validate(data)
    except ValidationError as error:
        raise SpecmdError(explain(path, "engine", error, SCHEMA, data.get("schema"))) from None
