"""What a calibration plays: one workload in several ways, round after round.

The speed of a machine drifts within minutes, and others use it too. So a *round* plays every way
once; what is compared lies in one round, and what counts is the median over rounds. On the
processor the system says for how long the computing thread had a core: a round in which it was
given too little measured somebody else.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from specmd.hardware.profile import HardwareProfile
from specmd.hardware.shape import ModelShape
from specmd.live import Offload, offload
from specmd.measurement.prediction import pace
from specmd.measurement.settings import LiveSettings
from specmd.measurement.workload import Workload
from specmd.runs.latency import latency
from specmd.runs.metrics import PART_COLUMN
from specmd.runs.options import RunConfig
from specmd.simulation.costs import coefficients
from specmd.simulation.replay import replay
from specmd.trace import Trace, slice_steps

Seconds = npt.NDArray[np.float64]

SCHEDULE = "guard"
_COMPUTE, _OVERHEAD = PART_COLUMN["compute"], PART_COLUMN["overhead"]


@dataclass(frozen=True)
class Way:
    """One way to play: LRU with `slots` (None: every expert resident), a prefetcher, a pace."""

    name: str
    slots: int | None = None
    prefetch: str = "none"
    throttle: tuple[float, float] | None = None


@dataclass(frozen=True)
class Play:
    """One play.

    Attributes:
        way: how it was played.
        trace: of its routing.
        seconds: (steps, PARTS).
        between_s: of a step, between two passes of the model.
        waits: layers in which the host waited; 0 where it is the device that waits.
        prefetches: copies made ahead.
        events: layers.
        core_share: CPU time of the computing thread over the time it did not wait; None on an
            accelerator.

    """

    way: Way
    trace: Trace
    seconds: Seconds
    between_s: float
    waits: int
    prefetches: int
    events: int
    core_share: float | None

    @property
    def step_seconds(self) -> Seconds:
        """(steps,) seconds of each step."""
        return np.asarray(self.seconds.sum(axis=1))

    def times(self) -> dict[str, float]:
        """TTFT and TPOT in seconds, those that the workload has."""
        return times(self.trace, self.seconds)


def times(trace: Trace, seconds: Seconds) -> dict[str, float]:
    """TTFT and TPOT of (steps, PARTS) seconds, those that the trace has."""
    found = latency(trace, seconds, 0, None).metrics
    named = {name.removesuffix("_s"): found[name] for name in ("ttft_s", "tpot_s")}
    return {name: float(value) for name, value in named.items() if value is not None}


def enter(workload: Workload, settings: LiveSettings, way: Way) -> Offload:
    """Make a live cache that plays one way, with the settings' device and link."""
    return offload(
        workload.model,
        "lru",
        "100%" if way.slots is None else way.slots,
        prefetch=way.prefetch,
        schedule=SCHEDULE,
        throttle=way.throttle,
        log_routing=True,
        **settings.placement(),
        **workload.offload_options(settings, way.slots),
    )


def play(workload: Workload, settings: LiveSettings, way: Way, count: int = 1) -> list[Play]:
    """Play `count` times: from an empty cache each, or all from a full one if that is the way."""
    found = []
    with enter(workload, settings, way) as cache:
        if way.slots is None:
            workload.play()
        for number in range(count):
            if number and way.slots is not None:
                cache.restart()
            found.append(play_once(workload, cache, way))
    return found


def play_once(workload: Workload, cache: Offload, way: Way) -> Play:
    """Play inside an offload block."""
    before, done = cache.report(), len(cache.step_seconds)
    began_s = time.thread_time()
    workload.play()
    given_s = time.thread_time() - began_s
    after, seconds = cache.report(), cache.step_seconds[done:]
    deciding_s = after.routing_s + after.deciding_s - before.routing_s - before.deciding_s
    on_host = after.link == "cpu"
    own_s = float(seconds[:, [_COMPUTE, _OVERHEAD]].sum())
    return Play(
        way=way,
        trace=slice_steps(cache.trace, done),
        seconds=seconds,
        between_s=(float(seconds[:, _OVERHEAD].sum()) - deciding_s) / len(seconds),
        waits=after.waits - before.waits if on_host else 0,
        prefetches=(after.prefetches_issued - after.prefetches_cancelled)
        - (before.prefetches_issued - before.prefetches_cancelled),
        events=after.events - before.events,
        core_share=min(1.0, given_s / own_s) if on_host else None,
    )


def simulate(way: Way, trace: Trace, profile: HardwareProfile, shape: ModelShape | None) -> Seconds:
    """Simulate a play on a profile: (steps, PARTS) seconds."""
    header = trace.header
    assert header.expert_bytes is not None, "a live run knows how large its experts are"
    slots = header.num_layers * header.num_experts if way.slots is None else way.slots
    config = RunConfig(
        prefetch=way.prefetch, schedule=SCHEDULE, capacity=str(slots), capacity_slots=slots
    )
    chunk_bytes = profile.host_link.chunk_bytes.value
    paced = pace(profile, way.throttle, chunk_bytes, header.expert_bytes)
    costs = coefficients(paced, shape, header.expert_bytes)
    outcome = replay(trace, config, costs=costs, residency="all" if way.slots is None else "cache")
    assert outcome.step_seconds is not None
    return outcome.step_seconds
