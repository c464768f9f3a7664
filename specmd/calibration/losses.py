"""What computing loses to what goes on beside it: waits, copies, predictions.

A processor that had to wait goes on slower than it stopped: its caches have gone cold, and one wait
in a layer is enough for that. A copy thread that works while another computes takes the interpreter
from it, for every prefetch. A prefetcher that looks ahead runs another gate in every layer. With
small experts all that is not small. Three plays tell them apart: every expert resident but with a
prefetcher (predicting alone), every expert waited for (no prefetch), and half of them resident with
a prefetcher (all three). On an accelerator kernels wait and not the host, which costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from specmd.errors import SpecmdError
from specmd.live import Offload, Report, offload
from specmd.measurement.settings import LiveSettings
from specmd.measurement.workload import Workload
from specmd.runs.metrics import PARTS

ROUNDS = 3
WAIT_S = 1e-3  # at least this long an expert is under way when waits are measured
PREFETCH = "next_gate"
_OWN = [list(PARTS).index(name) for name in ("compute", "overhead")]


@dataclass(frozen=True)
class Losses:
    """Seconds lost by computing: in a layer that waited, by a prefetch, by looking ahead once."""

    resume_s: float
    transfer_s: float
    predict_s: float


@dataclass(frozen=True)
class Play:
    """One play: seconds that were no stall (less those of the resident play), and what went on."""

    lost_s: float
    waits: int  # layers that waited
    prefetches: int
    events: int  # layers


def measure_losses(workload: Workload, settings: LiveSettings, expert_bytes: int) -> Losses:
    """Play a workload several ways and split what it lost.

    A machine's speed drifts within minutes, so each round plays it with every expert resident, too,
    and what counts is the difference within a round.

    Args:
        workload: what is played.
        settings: device, link, threads.
        expert_bytes: size of an expert.

    """
    slow = (expert_bytes / WAIT_S, 0.0)
    ways: dict[str, dict[str, Any]] = {
        "waited": {"capacity": 1, "throttle": slow},
        "predicted": {"prefetch": PREFETCH},
        "fetched": {"capacity": "50%", "prefetch": PREFETCH, "throttle": slow},
    }
    rounds: dict[str, list[Play]] = {}
    for number in range(ROUNDS):
        warm = number == 0  # what is compiled stays compiled
        resident = _play(workload, settings, warm=True)
        for way, options in ways.items():
            try:
                play = _play(workload, settings, warm=warm, **options)
            except SpecmdError:  # a trace without lookahead scores
                continue
            rounds.setdefault(way, []).append(replace(play, lost_s=play.lost_s - resident.lost_s))
    waited, predicted, fetched = (_sum(rounds.get(way, [])) for way in ways)
    assert waited is not None
    return split_losses(waited, predicted, fetched)


def _sum(plays: list[Play]) -> Play | None:
    if not plays:
        return None
    return Play(
        lost_s=sum(play.lost_s for play in plays),
        waits=sum(play.waits for play in plays),
        prefetches=sum(play.prefetches for play in plays),
        events=sum(play.events for play in plays),
    )


def split_losses(waited: Play, predicted: Play | None, fetched: Play | None) -> Losses:
    """Charge each play's loss to what is new in it; none of the three below 0.

    Without the two plays with a prefetcher there is nothing to say of prefetching.
    """
    resume_s = max(0.0, waited.lost_s / waited.waits) if waited.waits else 0.0
    if predicted is None or fetched is None:
        return Losses(resume_s, 0.0, 0.0)
    predict_s = max(0.0, predicted.lost_s / max(1, predicted.events))
    left_s = fetched.lost_s - fetched.events * predict_s - fetched.waits * resume_s
    return Losses(resume_s, max(0.0, left_s / max(1, fetched.prefetches)), predict_s)


def enter(
    workload: Workload,
    settings: LiveSettings,
    capacity: int | str = "100%",
    prefetch: str = "none",
    throttle: tuple[float, float] | None = None,
) -> Offload:
    """Make a live cache for a calibration: LRU, the settings' device and link, another pace."""
    return offload(
        workload.model,
        "lru",
        prefetch,
        capacity=capacity,
        throttle=throttle,
        log_routing=True,
        **settings.placement(),
        **workload.offload_options(settings, capacity if isinstance(capacity, int) else None),
    )


def _play(
    workload: Workload,
    settings: LiveSettings,
    *,
    warm: bool,
    **options: Any,
) -> Play:
    """Play once, or twice and take the second (`warm`); with all resident that is always needed."""
    with enter(workload, settings, **options) as cache:
        resident = "capacity" not in options
        if warm or resident:
            workload.play()
        if not resident:
            cache.restart()
        before, steps = cache.report(), len(cache.step_seconds)
        workload.play()
        after = cache.report()
        seconds = cache.step_seconds[steps:]
    on_host = after.link == "cpu"
    return Play(
        lost_s=float(seconds[:, _OWN].sum()),
        waits=after.waits - before.waits if on_host else 0,
        prefetches=_prefetches(after) - _prefetches(before),
        events=after.events - before.events,
    )


def _prefetches(report: Report) -> int:
    return report.prefetches_issued - report.prefetches_cancelled
