"""Calibrate: from measurements on this machine to a profile that predicts it.

Four things are measured. The link, by the mover that a live run uses. Computing, as one expert of
the model takes it for 1 to 512 tokens, from which follows the rate of arithmetic. The software
around the experts: the model runs with every expert resident, a simulation of the same trace says
how long its kernels take by roofline, and what it really took beyond that is charged to every
expert, layer and step. And what computing loses beside copies (`specmd.calibration.losses`), from
one play in which every expert is waited for and one in which experts are prefetched. What a profile
then says of other policies, capacities and links is a prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from specmd.calibration.kernels import expert_seconds, launch_s, memory_bytes_per_s
from specmd.calibration.link import LinkFigures, measure_link
from specmd.calibration.losses import enter, measure_losses
from specmd.calibration.profile import Circumstances, MeasuredFigures, make_profile
from specmd.calibration.software import split_software
from specmd.hardware.profile import HardwareProfile
from specmd.hardware.shape import ModelShape
from specmd.live import Offload
from specmd.measurement.settings import LiveSettings
from specmd.measurement.workload import Workload
from specmd.models.moe import find_moe
from specmd.runs.metrics import PARTS
from specmd.runs.options import RunConfig
from specmd.simulation.costs import FLOPS_PER_WEIGHT, coefficients
from specmd.simulation.events import EventStream
from specmd.simulation.replay import replay
from specmd.trace import DECODE, Trace

Seconds = npt.NDArray[np.float64]

_OVERHEAD = list(PARTS).index("overhead")
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
PLAYS = 3


@dataclass(frozen=True)
class Calibration:
    """A calibrated profile and how well it fits what it was made from.

    Attributes:
        profile: `calibrated = true`.
        expert_s: seconds of one expert by number of tokens, as measured.
        link: measured and fitted figures of the link.
        decode_misfit: relative error of the fitted mean decode step, all experts resident.
        prefill_misfit: the same of the prefill steps, None if there is none.

    """

    profile: HardwareProfile
    expert_s: dict[int, float]
    link: LinkFigures
    decode_misfit: float | None
    prefill_misfit: float | None


def calibrate(
    workload: Workload,
    shape: ModelShape | None,
    settings: LiveSettings,
    *,
    name: str = "this-machine",
    progress: Callable[[int, int, str], None] | None = None,
) -> Calibration:
    """Measure this machine with a workload, and make a profile of it.

    Args:
        workload: what runs with all experts resident; it should prefill and decode.
        shape: of its model; None leaves attention and head to the software's share.
        settings: device, link and threads; its throttle and repetitions are not used.
        name: of the profile.
        progress: called with (parts done, parts, what comes next).

    Raises:
        SpecmdError: the model cannot be offloaded, or does not fit with all experts resident.

    """
    say = progress or (lambda done, total, what: None)
    say(0, 5, "all experts resident")
    options = settings.model_copy(update={"throttle": None, "deterministic": False})
    with enter(workload, options) as cache:
        trace, seconds, between_s = _play(workload, cache)
        device, threads = cache.device, torch.get_num_threads()
        say(1, 5, "experts by number of tokens")
        some = find_moe(workload.model).layers[0].experts
        hidden = int(workload.model.config.get_text_config().hidden_size)  # type: ignore[union-attr, operator]
        expert_s = expert_seconds(some, cache.views, hidden, TOKENS)
        weights = sum(tensor.numel() for tensor in cache.views[0].values())
        kind = next(iter(cache.views[0].values())).dtype
        say(2, 5, "memory and launches")
        read_rate, small_s = memory_bytes_per_s(device), launch_s(device)
    say(3, 5, "the link")
    expert_bytes = trace.header.expert_bytes
    assert expert_bytes is not None, "a live run knows how large its experts are"
    link = measure_link(device, expert_bytes, settings.chunk_bytes)
    largest = max(TOKENS)
    slope_s = (expert_s[largest] - expert_s[1]) / (largest - 1)
    measured = MeasuredFigures(
        memory_bytes_per_s=read_rate,
        flops_per_s=FLOPS_PER_WEIGHT * weights / max(slope_s, 1e-12),
        launch_s=small_s,
        expert_s=0.0,
        layer_s=0.0,
        step_s=0.0,
        resume_s=0.0,
        transfer_s=0.0,
        predict_s=0.0,
        link=link,
    )
    about = Circumstances(name, device, threads, kind, workload.name, settings.chunk_bytes)
    taken = seconds.sum(axis=1)
    decodes = _decode_steps(trace)
    left_s = taken - _predicted(trace, shape, make_profile(measured, about))
    alone_s = max(0.0, expert_s[1] - expert_bytes / read_rate)
    software = split_software(left_s, _demands(trace), alone_s, taken)
    step_s = min(max(0.0, between_s), software.base_s)
    layer_s = (software.base_s - step_s) / trace.header.num_layers
    say(4, 5, "computing beside copies")
    lost = measure_losses(workload, options, expert_bytes)
    measured = replace(
        measured,
        expert_s=software.expert_s,
        resume_s=lost.resume_s,
        transfer_s=lost.transfer_s,
        predict_s=lost.predict_s,
    )
    profile = make_profile(replace(measured, layer_s=layer_s, step_s=step_s), about)
    fitted = _predicted(trace, shape, profile)
    return Calibration(
        profile=profile,
        expert_s=expert_s,
        link=link,
        decode_misfit=_misfit(fitted[decodes], taken[decodes]),
        prefill_misfit=_misfit(fitted[~decodes], taken[~decodes]),
    )


def _play(workload: Workload, cache: Offload) -> tuple[Trace, Seconds, float]:
    """Play until resident, then PLAYS times: trace, (steps, PARTS) medians, time between passes."""
    workload.play()
    trace = cache.trace
    before = cache.report()
    for _ in range(PLAYS):
        workload.play()
    after = cache.report()
    seconds = cache.step_seconds.reshape(1 + PLAYS, trace.num_steps, -1)[1:]
    deciding_s = after.routing_s + after.deciding_s - before.routing_s - before.deciding_s
    overhead_s = float(seconds[:, :, _OVERHEAD].sum())
    between_s = (overhead_s - deciding_s) / (PLAYS * trace.num_steps)
    return trace, np.median(seconds, axis=0), between_s


def _predicted(trace: Trace, shape: ModelShape | None, profile: HardwareProfile) -> Seconds:
    """Simulate the trace with every expert resident: (steps,) seconds."""
    expert_bytes = trace.header.expert_bytes
    assert expert_bytes is not None
    slots = trace.header.num_layers * trace.header.num_experts
    config = RunConfig(capacity="100%", capacity_slots=slots)
    costs = coefficients(profile, shape, expert_bytes)
    outcome = replay(trace, config, costs=costs, residency="all")
    assert outcome.step_seconds is not None
    return np.asarray(outcome.step_seconds.sum(axis=1))


def _demands(trace: Trace) -> Seconds:
    """Experts that each step asks for, summed over layers: (steps,)."""
    stream = EventStream(trace)
    chunk = stream.chunk(0, stream.num_steps)
    sizes = np.diff(chunk.start).reshape(trace.num_steps, -1)
    return np.asarray(sizes.sum(axis=1), np.float64)


def _decode_steps(trace: Trace) -> npt.NDArray[np.bool_]:
    found = np.zeros(trace.num_steps, np.bool_)
    found[trace.step[trace.phase == DECODE]] = True
    return found


def _misfit(fitted: Seconds, taken: Seconds) -> float | None:
    return float(fitted.mean() / taken.mean() - 1) if len(taken) else None
