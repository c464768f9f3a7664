"""How a live run is made, beside what any run is: device, link, pace, repetitions."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from specmd.errors import SpecmdError
from specmd.hardware.profile import load_profile
from specmd.runs.options import parse_bytes

_TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_PACED = re.compile(
    r"([0-9.]+\s*[KMG]?i?B)/s(?:\s*,\s*([0-9.]+)\s*(s|ms|us))?", flags=re.IGNORECASE
)


class LiveSettings(BaseModel):
    """What `specmd.offload` is told beyond the configuration, and how often the workload is played.

    `throttle` is (bytes per second, latency in seconds), None for the link as it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str | None = None
    link: Literal["auto", "cpu", "accelerator"] = "auto"
    throttle: tuple[float, float] | None = None
    prefill: Literal["waves", "bypass", "double_buffer"] = "waves"
    deterministic: bool = False
    chunk_bytes: int = Field(default=4 << 20, ge=1)
    pinned_budget: int | None = Field(default=None, ge=0)
    compute_threads: int | None = Field(default=None, ge=1)
    checkpoint: str | None = Field(default=None, description="folder to read experts from")
    scratch: str | None = Field(default=None, description="folder for the experts of a trace")
    warmup_runs: int = Field(default=1, ge=0, description="plays of the workload not counted")
    repetitions: int = Field(default=3, ge=1)
    quality: bool = Field(default=False, description="set answers beside the lossless run's")

    def placement(self) -> dict[str, Any]:
        """Arguments of `specmd.offload` that say where experts are and who computes."""
        names = ("device", "link", "checkpoint", "pinned_budget", "chunk_bytes", "compute_threads")
        return {name: getattr(self, name) for name in names}


def parse_throttle(text: str) -> tuple[float, float] | None:
    """Read `2GB/s`, `2GB/s,20us`, the name of a profile (its host link), or `none`.

    Returns (bytes per second, latency in seconds). Raises SpecmdError for anything else.
    """
    if text == "none":
        return None
    match = _PACED.fullmatch(text.strip())
    if match is None:
        if re.match(r"\s*[0-9]", text):
            raise SpecmdError(
                f"throttle '{text}' is not understood: write 2GB/s, 2GB/s,20us (with a latency), "
                "the name of a hardware profile, or none"
            )
        link = load_profile(text).host_link
        return link.bytes_per_s.value, link.latency_s.value
    try:
        rate = float(parse_bytes(match[1]))
        latency_s = float(match[2]) * _TIMES[match[3].lower()] if match[2] else 0.0
    except (SpecmdError, ValueError):
        raise SpecmdError(f"throttle '{text}' is not understood: write 2GB/s,20us") from None
    if rate <= 0:
        raise SpecmdError(f"throttle '{text}': give a bandwidth above 0")
    return rate, latency_s
