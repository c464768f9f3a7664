"""What a run is asked to do: the configuration, validated, and the spelling of its parts.

A policy is spelled `name` or `name:key=value,...`; a capacity as slots `51`, slots a layer
`16/layer`, a share `5%` of all experts, or bytes `0.6GB`. Two configurations that mean the same
are written the same, so that the hash of a configuration names its result.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from specmd.errors import SpecmdError

Scope = Literal["global", "layer"]
Admission = Literal["forced", "bypass"]
Reset = Literal["none", "request"]

STAGING_SLOTS = 2
"""Slots of device memory beyond the capacity, for experts that only pass through."""

_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class RunConfig(BaseModel):
    """One run. Policies are in their canonical spelling; `capacity_slots` is over all pools."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    evict: str = "lru"
    prefetch: str = "none"
    schedule: str = "fifo"
    miss: str = "overlap"
    route: str = "none"
    allocate: str = "uniform"
    capacity: str = Field(description="as asked for: slots, N/layer, N%, or bytes")
    capacity_slots: int = Field(ge=0)
    scope: Scope = "global"
    admission: Admission = "forced"
    reset: Reset = "none"
    sequential: bool = False
    warmup: int = Field(default=0, ge=0, description="steps excluded from the counters")
    tokens: int | None = Field(default=None, ge=1, description="only the first N tokens")
    seed: int = 0
    profile: str | None = None
    shape: str | None = None


def parse_capacity(
    text: str | int, num_layers: int, num_experts: int, expert_bytes: int | None
) -> int:
    """Slots, over all layers, that a capacity stands for.

    Raises SpecmdError for a spelling that means nothing, for bytes where the trace does not say
    how large an expert is, and for less than one slot.
    """
    spelled = str(text).strip()
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(%|/layer|[KMG]?i?B)?", spelled, re.IGNORECASE)
    if match is None:
        raise SpecmdError(
            f"capacity '{spelled}' is not understood: write slots (51), slots a layer (16/layer), "
            "a share of all experts (5%), or bytes (0.6GB)"
        )
    number, unit = float(match[1]), (match[2] or "").upper()
    keys = num_layers * num_experts
    if unit == "%":
        slots = int(keys * number / 100 + 1e-9)
    elif unit == "/LAYER":
        slots = int(number * num_layers)
    elif unit:
        if expert_bytes is None:
            raise SpecmdError(
                f"capacity '{spelled}' is in bytes, but the trace does not say how large an expert "
                "is: import it with --expert-bytes, or give slots"
            )
        slots = int(number * _BYTES[unit] / expert_bytes + 1e-9)
    elif "." in match[1]:
        raise SpecmdError(f"capacity '{spelled}' is not a whole number of slots; a share is '5%'")
    else:
        slots = int(match[1])
    if slots < 1:
        raise SpecmdError(f"capacity '{spelled}' is less than one slot")
    return slots
