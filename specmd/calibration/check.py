"""Does a calibration predict what it was not made from? If not, it is refused.

Beside the plays that a profile is fitted to, each round holds others: every expert resident once
more, none and half of them. The profile has to predict TTFT and TPOT of all of them. That, whether
the computing thread was given a core, and whether rounds agree is written into the profile, and a
profile that fails says so wherever it is used.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from specmd.calibration.plays import Play, Way, simulate, times
from specmd.hardware.profile import Check, HardwareProfile
from specmd.hardware.shape import ModelShape

WORST = 0.10  # error of a prediction
UNEVEN = 0.20  # between rounds: half of the range over the median
CORE_SHARE = 0.85  # of a core that the computing thread must be given

Rounds = Sequence[Mapping[str, Play]]


def check(
    profile: HardwareProfile,
    shape: ModelShape | None,
    rounds: Rounds,
    ways: Sequence[Way],
    *,
    missing: int,
    disturbed: Sequence[float],
) -> Check:
    """Hold a profile against plays that it was not fitted to.

    Args:
        profile: as fitted.
        shape: of the model.
        rounds: plays by name of their way.
        ways: those that were held out.
        missing: undisturbed rounds that there should be more.
        disturbed: share of a core in each round that was not used.

    """
    errors: dict[str, float] = {}
    spreads = []
    for way in ways:
        plays = [each[way.name] for each in rounds]
        predicted = times(plays[0].trace, simulate(way, plays[0].trace, profile, shape))
        for name, seconds in predicted.items():
            measured = statistics.median(play.times()[name] for play in plays)
            errors[f"{way.name}_{name}"] = seconds / measured - 1
        totals = [float(play.seconds.sum()) for play in plays]
        spreads.append((max(totals) - min(totals)) / 2 / statistics.median(totals))
    shares = [play.core_share for plays in rounds if (play := plays[ways[0].name]).core_share]
    spread = statistics.median(spreads)
    return Check(
        accepted=not (reason := _reason(errors, spread, missing, disturbed)),
        reason=reason,
        rounds=len(rounds),
        spread=spread,
        core_share=statistics.median(shares) if shares else None,
        errors=errors,
    )


def _reason(
    errors: Mapping[str, float], spread: float, missing: int, disturbed: Sequence[float]
) -> str:
    if missing > 0:
        return (
            f"the machine is too busy: in {len(disturbed)} rounds the computing thread was given "
            f"{min(disturbed):.0%} to {max(disturbed):.0%} of a core, {CORE_SHARE:.0%} are needed"
        )
    if spread > UNEVEN:
        return f"the machine is uneven: rounds differ by {spread:.0%}, {UNEVEN:.0%} are allowed"
    name, worst = max(errors.items(), key=lambda item: abs(item[1]))
    if abs(worst) > WORST:
        way, _, metric = name.rpartition("_")
        return (
            f"its own check fails: {metric.upper()} of '{way.replace('_', ' ')}' is simulated "
            f"{worst:+.1%} off, {WORST:.0%} are allowed; rounds differ by {spread:.0%}"
        )
    return ""
