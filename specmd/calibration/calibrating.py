"""Calibrate: from measurements on this machine to a profile that predicts it, or a reason why not.

Four things are measured. The link, by the mover that a live run uses. Computing, as one expert of
the model takes it for 1 and for 512 tokens, from which follows the rate of arithmetic. The software
around the experts: the model runs with every expert resident, a simulation of the same trace says
how long its kernels take by roofline, and what it really took beyond that is charged to every
expert, layer and step. And what computing loses beside copies (`specmd.calibration.losses`). What a
profile then says of other policies, capacities and links is a prediction, and some predictions are
tried at once (`specmd.calibration.check`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from specmd.calibration.check import CORE_SHARE, check
from specmd.calibration.kernels import expert_seconds, launch_s, memory_bytes_per_s
from specmd.calibration.link import LinkFigures, measure_link
from specmd.calibration.losses import (
    FETCHED,
    PARTLY,
    PREDICTED,
    RESIDENT,
    WAITED,
    Losses,
    Round,
    fit_losses,
    limits,
)
from specmd.calibration.plays import Play, Seconds, Way, enter, play, play_once, simulate
from specmd.calibration.profile import Circumstances, MeasuredFigures, make_profile
from specmd.calibration.software import split_software
from specmd.errors import SpecmdError
from specmd.hardware.profile import HardwareProfile
from specmd.hardware.shape import ModelShape
from specmd.measurement.settings import LiveSettings
from specmd.measurement.workload import Workload
from specmd.models.moe import find_moe
from specmd.simulation.costs import FLOPS_PER_WEIGHT
from specmd.simulation.events import EventStream
from specmd.trace import DECODE, Trace, TraceHeader

TOKENS = (1, 512)
ROUNDS = 3  # undisturbed ones, at least
MOST_ROUNDS = 8
PREFETCH = "next_gate"
_FIT_S, _CHECK_S = 1e-3, 2e-3  # an expert is under way at least as long where a link is paced
_PAUSE_S = 1.0  # after a disturbed round


@dataclass(frozen=True)
class Calibration:
    """A calibrated profile, with its check in it, and what it was made from.

    Attributes:
        profile: `calibrated = true`; whether it was accepted is in `profile.check`.
        expert_s: seconds of one expert by number of tokens, as measured.
        link: measured and fitted figures of the link.
        rounds: the plays by name of their way.

    """

    profile: HardwareProfile
    expert_s: dict[int, float]
    link: LinkFigures
    rounds: list[Round]


def calibrate(
    workload: Workload,
    shape: ModelShape | None,
    settings: LiveSettings,
    *,
    name: str = "this-machine",
    progress: Callable[[int, int, str], None] | None = None,
) -> Calibration:
    """Measure this machine with a workload, and make a profile of it.

    Rounds go on until enough are undisturbed and the profile passes its check, or there were too
    many; `profile.check` says which.

    Args:
        workload: what runs; it should prefill and decode.
        shape: of its model; None leaves attention and head to the software's share.
        settings: device, link and threads; its throttle and repetitions are not used.
        name: of the profile.
        progress: called with (parts done, parts, what comes next).

    Raises:
        SpecmdError: the model cannot be offloaded, or does not fit with all experts resident.

    """
    say = progress or (lambda done, total, what: None)
    parts = 2 + MOST_ROUNDS
    options = settings.model_copy(update={"throttle": None, "deterministic": False})
    say(0, parts, "experts, memory and launches")
    resident = Way(RESIDENT)
    with enter(workload, options, resident) as cache:
        header = play_once(workload, cache, resident).trace.header
        device, on_host = cache.device, cache.report().link == "cpu"
        hidden = int(workload.model.config.get_text_config().hidden_size)  # type: ignore[union-attr, operator]
        some = find_moe(workload.model).layers[0].experts
        expert_s = expert_seconds(some, cache.views, hidden, TOKENS)
        weights = sum(tensor.numel() for tensor in cache.views[0].values())
        about = Circumstances(
            name,
            device,
            torch.get_num_threads(),
            next(iter(cache.views[0].values())).dtype,
            workload.name,
            settings.chunk_bytes,
        )
        read_rate, small_s = memory_bytes_per_s(device), launch_s(device)
    say(1, parts, "the link")
    expert_bytes = header.expert_bytes
    assert expert_bytes is not None, "a live run knows how large its experts are"
    most, least = max(expert_s), min(expert_s)
    slope_s = (expert_s[most] - expert_s[least]) / (most - least)
    measured = MeasuredFigures(
        memory_bytes_per_s=read_rate,
        flops_per_s=FLOPS_PER_WEIGHT * weights / max(slope_s, 1e-12),
        launch_s=small_s,
        expert_s=0.0,
        layer_s=0.0,
        step_s=0.0,
        losses=Losses(),
        link=measure_link(device, expert_bytes, settings.chunk_bytes),
    )
    assert header.layer_bytes is not None
    alone_s = max(0.0, expert_s[least] - header.layer_bytes[0] / read_rate)
    fitted, held_out = _ways(header, on_host=on_host)
    rounds: list[Round] = []
    disturbed: list[float] = []
    first: Round = {}
    while True:
        done = len(rounds) + len(disturbed)
        say(2 + done, parts, f"round {done + 1}, at most {MOST_ROUNDS}")
        plays = _play_round(workload, options, fitted, held_out, whole=not first)
        first = first or plays
        if (share := _share(plays)) < CORE_SHARE:
            disturbed.append(share)
            time.sleep(_PAUSE_S)
        else:
            rounds.append(plays)
        over = len(rounds) + len(disturbed) >= MOST_ROUNDS or len(disturbed) >= ROUNDS
        if len(rounds) < ROUNDS and not over:
            continue
        used = rounds or [first]
        profile = _fit(used, measured, alone_s, shape, about)
        checked = check(
            profile, shape, used, held_out, missing=ROUNDS - len(rounds), disturbed=disturbed
        )
        if checked.accepted or over:
            profile = profile.model_copy(update={"check": checked})
            return Calibration(profile, expert_s, measured.link, used)


def _ways(header: TraceHeader, *, on_host: bool) -> tuple[list[Way], list[Way]]:
    """Ways that are fitted, and those that are held out; the first of each is all resident.

    An accelerator's link is taken as it is. The copy thread of a host link that is not paced fights
    with the computing one for interpreter and memory, which no figure of a profile describes.
    """
    expert_bytes = header.expert_bytes
    assert expert_bytes is not None
    keys = header.num_layers * header.num_experts
    half = keys // 2
    none = min(half, 2 * header.top_k)  # LRU never hits with so few, but a layer's experts fit
    paced, slower = (expert_bytes / _FIT_S, 0.0), (expert_bytes / _CHECK_S, 20e-6)
    fitted = [
        Way(RESIDENT),
        Way(WAITED, none, throttle=paced),
        Way(PARTLY, keys // 3, throttle=paced),
        Way(PREDICTED, prefetch=PREFETCH),
        Way(FETCHED, half, PREFETCH, paced),
    ]
    as_it_is = [Way("none_resident", none), Way("half_resident", half)]
    held_out = [
        Way("all_resident"),
        *([] if on_host else as_it_is),
        *(replace(way, name=f"{way.name}_paced", throttle=slower) for way in as_it_is),
    ]
    return fitted, held_out


def _play_round(
    workload: Workload,
    settings: LiveSettings,
    fitted: list[Way],
    held_out: list[Way],
    *,
    whole: bool,
) -> Round:
    """Play every way once; only the first, unless `whole`, where that shows a busy machine."""
    plays = dict(
        zip(
            (fitted[0].name, held_out[0].name),
            play(workload, settings, fitted[0], count=2),
            strict=True,
        )
    )
    if not whole and _share(plays) < CORE_SHARE:
        return plays
    for way in (*fitted[1:], *held_out[1:]):
        try:
            plays[way.name] = play(workload, settings, way)[0]
        except SpecmdError:
            if way.prefetch == "none":
                raise
            # A trace without lookahead scores.
    return plays


def _share(plays: Round) -> float:
    """Share of a core in the plays with nothing to wait for; 1 where nobody can say."""
    shares = [play.core_share for play in plays.values() if play.way.slots is None]
    return min((share for share in shares if share is not None), default=1.0)


def _fit(
    rounds: list[Round],
    measured: MeasuredFigures,
    alone_s: float,
    shape: ModelShape | None,
    about: Circumstances,
) -> HardwareProfile:
    """Fit what software costs and computing loses to the rounds."""
    residents = [plays[RESIDENT] for plays in rounds]
    way, trace = residents[0].way, residents[0].trace
    taken = _middle(residents)
    roofline = simulate(way, trace, make_profile(measured, about), shape).sum(axis=1)
    software = split_software(taken - roofline, _demands(trace), alone_s, taken)
    between_s = statistics.median(play.between_s for play in residents)
    step_s = min(max(0.0, between_s), software.base_s)
    header = trace.header
    measured = replace(
        measured,
        expert_s=software.expert_s,
        layer_s=(software.base_s - step_s) / header.num_layers,
        step_s=step_s,
    )

    def simulated(play: Play, losses: Losses) -> Seconds:
        profile = make_profile(replace(measured, losses=losses), about)
        return np.asarray(simulate(play.way, play.trace, profile, shape).sum(axis=1))

    layer_s = float(np.median(taken[_decode_steps(trace)])) / header.num_layers
    limit = limits(layer_s, header.top_k)
    losses = fit_losses(rounds, simulated, limit)
    return make_profile(replace(measured, losses=losses), about)


def _middle(plays: list[Play]) -> Seconds:
    """Seconds of every step: medians over plays, but with the mean of a phase as plays have it.

    Single steps are sometimes interrupted. Medians leave that out, a run's TPOT does not.
    """
    steps = np.array([play.step_seconds for play in plays])
    middle = np.median(steps, axis=0)
    decodes = _decode_steps(plays[0].trace)
    for phase in (decodes, ~decodes):
        if phase.any():
            middle[phase] *= np.median(steps[:, phase].mean(axis=1)) / middle[phase].mean()
    return np.asarray(middle)


def _demands(trace: Trace) -> Seconds:
    """Experts that each step asks for, summed over layers: (steps,)."""
    stream = EventStream(trace)
    chunk = stream.chunk(0, stream.num_steps)
    sizes = np.diff(chunk.start).reshape(trace.num_steps, -1)
    return np.asarray(sizes.sum(axis=1), np.float64)


def _decode_steps(trace: Trace) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    found = np.zeros(trace.num_steps, np.bool_)
    found[trace.step[trace.phase == DECODE]] = True
    return found
