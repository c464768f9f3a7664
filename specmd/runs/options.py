"""What a run is asked to do: the configuration, validated and in canonical spelling.

Two configurations that mean the same are written the same, so that the hash of a configuration
names its result. The options themselves are declared in `specmd.runs.declared`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from specmd.errors import SpecmdError
from specmd.runs.declared import Reset, RunOptions, Scope

__all__ = ["Reset", "RunConfig", "Scope", "parse_bytes"]

STAGING_SLOTS = 2
"""Slots of device memory beyond the capacity, for experts that only pass through."""

_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class RunConfig(RunOptions, BaseModel):
    """One run. Policies are in their canonical spelling; `capacity` is as it was asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    capacity_slots: int = Field(ge=0, description="what `capacity` comes to, over all pools")
    host_slots: int | None = Field(
        default=None, ge=1, description="what `host_capacity` comes to; None: no tier"
    )

    if TYPE_CHECKING:  # the fields come from RunOptions, where a checker does not look for them

        def __init__(self, **given: Any) -> None: ...


def parse_bytes(text: str) -> int:
    """Read `8GB`, `512MiB` or a plain number of bytes; raises SpecmdError for anything else."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMG]?i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise SpecmdError(f"'{text}' is not understood as a size: write 8GB, 512MiB, or bytes")
    return int(float(match[1]) * _BYTES[(match[2] or "B").upper()] + 1e-9)
