"""One row simulated: its configuration on its routing, timed on its group's profile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from specmd.board.anchors import fitted_to_anchors, profile_of
from specmd.board.machine import engine_of, shape_of
from specmd.board.routing import Label, Routing, routing_for
from specmd.board.rows import Row, by_group
from specmd.calibration.anchors import Anchored
from specmd.errors import SpecmdError
from specmd.hardware.profile import HardwareProfile
from specmd.policy.registry import entries
from specmd.runs.counters import check, tally
from specmd.runs.latency import latency
from specmd.runs.options import RunConfig
from specmd.runs.resolve import grid
from specmd.simulation.costs import coefficients
from specmd.simulation.replay import Residency, replay
from specmd.trace.header import DECODE

RESIDENCY: dict[str, Residency] = {"all": "all", "none": "none"}


@dataclass(frozen=True)
class Verdict:
    """What came of a row: simulated beside measured, or why it could not be."""

    row: Row
    anchors: int  # of its group
    reason: str = ""
    anchored: str = ""  # what its profile was fitted to, and what was assumed
    label: Label | None = None
    routing: str = ""
    tpot_s: float | None = None
    ttft_s: float | None = None
    hit_rate: float | None = None

    @property
    def ratio(self) -> float | None:
        """Simulated over measured seconds of a decode step."""
        return None if self.tpot_s is None else self.tpot_s / self.row.measured_tpot_s

    @property
    def ttft_ratio(self) -> float | None:
        """Simulated over measured time to the first token."""
        if self.ttft_s is None or self.row.ttft_s is None:
            return None
        return self.ttft_s / self.row.ttft_s

    @property
    def error(self) -> float | None:
        """Relative error of the time per token, signed."""
        return None if self.ratio is None else self.ratio - 1.0


def judge(
    rows: Sequence[Row],
    everything: Sequence[Row],
    traces: Path | None = None,
    note: Callable[[int, int, str], None] = lambda done, total, row: None,
) -> list[Verdict]:
    """Simulate rows; `everything` is all that groups may be looked up in."""
    groups = by_group(everything)
    fits: dict[str, tuple[Anchored | None, str]] = {}
    found = []
    for done, row in enumerate(rows):
        note(done, len(rows), row.id)
        members = groups[row.group]
        anchors = [each for each in members if each.anchor != "none"]
        try:
            _require_simulable(row)
            related = [*members, *(groups.get(row.like, []) if row.like else [])]
            if row.group not in fits:
                fits[row.group] = fitted_to_anchors(anchors, related, traces)
            fit, anchored = fits[row.group]
            profile = profile_of(row, fit, anchors)
            routing = routing_for(row, related, traces)
            times = predict(row, routing, profile)
        except SpecmdError as error:
            found.append(Verdict(row, len(anchors), reason=str(error)))
        else:
            said = (anchored, routing.label, routing.says)
            found.append(Verdict(row, len(anchors), "", *said, *times))
    return found


def predict(
    row: Row, routing: Routing, profile: HardwareProfile
) -> tuple[float | None, float | None, float | None]:
    """Simulate a row: seconds a decode step, seconds to the first token, hit rate; None: not told.

    The hit rate is that of decoding or of everything, as the row has it.
    """
    trace, config = routing.trace, config_of(row, routing)
    assert trace.header.expert_bytes is not None
    costs = coefficients(profile, shape_of(row), trace.header.expert_bytes, engine_of(row))
    outcome = replay(
        trace, config, costs=costs, residency=RESIDENCY.get(row.capacity or "", "cache")
    )
    check(outcome.counters)
    assert outcome.step_seconds is not None
    timed = latency(trace, outcome.step_seconds, outcome.first_step, outcome.link_busy_s).metrics
    counters = outcome.counters[DECODE]
    if row.hit_of == "all":
        counters = outcome.counters.sum(axis=0)
    hit_rate = None if row.capacity in RESIDENCY else tally(counters, None)["hit_rate"]
    return timed["tpot_s"], timed["ttft_s"], hit_rate


def config_of(row: Row, routing: Routing) -> RunConfig:
    """Spell a row's cache as the configuration of a run."""
    header = routing.trace.header
    whole = str(header.num_layers * header.num_experts)
    (config,) = grid(
        routing.trace,
        evict=row.policy,
        capacity=whole if row.capacity in RESIDENCY else row.capacity,
        scope=row.scope,
        miss=row.miss,
        prefetch=row.prefetch,
    )
    return config


def _require_simulable(row: Row) -> None:
    if row.cannot:
        raise SpecmdError(row.cannot)
    if row.capacity is None:
        raise SpecmdError("how many experts are kept is not published")
    if row.batch > 1:
        raise SpecmdError(f"a batch of {row.batch}: no recording of as many requests is at hand")
    if row.miss not in {entry.name for entry in entries("miss")}:
        raise SpecmdError(f"there is no miss policy '{row.miss}'")
