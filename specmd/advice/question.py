"""What is asked: for which devices, with how much memory, and what is to be short."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from specmd.advice.space import PARTS, Composition
from specmd.errors import SpecmdError
from specmd.hardware.profile import load_profile
from specmd.runs.options import RunConfig
from specmd.runs.resolve import make_grid
from specmd.runs.run import Run
from specmd.trace import Trace

Objective = Literal["tpot", "ttft", "total"]
METRIC: dict[Objective, str] = {"tpot": "tpot_s", "ttft": "ttft_s", "total": "total_s"}
"""The metric an objective makes as small as it can."""


@dataclass(frozen=True)
class Question:
    """What the best composition is sought for.

    Attributes:
        memory: of the device, for everything: `8GB`, or `free` for all that a profile has.
        profiles: names or files.
        objective: what is to be short.
        quality: least `kept_mass` of a lossy composition; None: none of them.
        options: further options of runs, by name (`context`, `batch`, ...).
        live: whether only what a live cache can do may win.
        seed: of the bootstrap, and of policies that draw.

    """

    memory: str
    profiles: tuple[str, ...]
    objective: Objective = "tpot"
    quality: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    live: bool = False

    def configs(
        self, trace: Trace, compositions: list[Composition], **changes: Any
    ) -> list[RunConfig]:
        """Spell runs of compositions on every profile, profiles side by side.

        `changes` are options that differ from what was asked. Raises SpecmdError for bad input.
        """
        memory = changes.pop("memory", self.memory)
        capacity = memory if memory == "free" else f"{memory} total"
        given = {
            **self.options,
            "seed": self.seed,
            "profile": list(self.profiles),
            "capacity": capacity,
        } | changes
        found = []
        for parts in compositions:
            chosen = dict(zip(PARTS, parts, strict=True))
            found += make_grid(given | chosen).expand(trace)
        return found

    def on(self, profile: str) -> Question:
        """Return the same of one profile, by its name."""
        return replace(self, profiles=(by_name(self)[profile],))

    def value(self, run: Run) -> float:
        """Return what is to be small; infinite where a run has no numbers or is not good enough."""
        seconds = run.metrics.get(METRIC[self.objective]) if run.status == "ok" else None
        kept = run.metrics.get("kept_mass")
        if kept is not None and self.quality is not None and kept < self.quality:
            return float("inf")
        return float("inf") if seconds is None else float(seconds)


def fitting_objective(trace: Trace, objective: Objective) -> Objective:
    """Return the objective; raises SpecmdError where the trace has nothing that it measures."""
    if objective == "tpot" and not (trace.phase == 1).any():
        raise SpecmdError("the trace has no decode step, so no TPOT: ask --for ttft, or total")
    if objective == "ttft" and not (trace.phase == 0).any():
        raise SpecmdError("the trace has no prefill, so no TTFT: ask --for tpot, or total")
    return objective


def by_name(question: Question) -> dict[str, str]:
    """Map the names of the profiles to what they were asked for as."""
    return {load_profile(path).name: path for path in question.profiles}
