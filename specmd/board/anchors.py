"""The profile of a row, fitted to the anchors of its group where it has any.

The fit is that of `specmd calibrate --anchor`, on the routing of the first anchor. What it finds
for the software and for attained shares holds for every row of the group; a row that states a link
of its own keeps it. No row is fitted alone: all of a group share what its anchors say.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from specmd.board.machine import engine_of, shape_of, stated_profile
from specmd.board.routing import routing_for
from specmd.board.rows import Row
from specmd.calibration.anchors import Anchor, Anchored, fit
from specmd.errors import SpecmdError
from specmd.hardware.profile import HardwareProfile

NAMED = {"all": "resident", "none": "no_cache"}


def fitted_to_anchors(
    anchors: Sequence[Row], related: Sequence[Row], traces: Path | None
) -> tuple[Anchored | None, str]:
    """Fit the profile of a group to its anchors, and say what was done.

    Anchors that contradict each other or the device are dropped, the second first. None where no
    row is an anchor, or none can be met; what is said then is why.
    """
    refused = ""
    for count in range(len(anchors), 0, -1):
        used = anchors[:count]
        try:
            found = _fit(used, related, traces)
        except SpecmdError as error:
            refused = refused or f"; with all of them: {error}"
            continue
        names = " and ".join(row.id for row in used)
        return found, " ".join([f"fitted to {names}{refused}.", *found.assumed])
    return None, refused.removeprefix("; with all of them: ")


def profile_of(row: Row, found: Anchored | None, anchors: Sequence[Row]) -> HardwareProfile:
    """Return a row's profile: what it states, with what its group's anchors say, if they do."""
    stated = stated_profile(row)
    if found is None:
        return stated
    fitted = found.profile
    changed: dict[str, object] = {"stack": fitted.stack, "attainable": fitted.attainable}
    first = stated_profile(anchors[0]).host_link
    if stated.host_link.bytes_per_s.value == first.bytes_per_s.value:
        changed["host_link"] = fitted.host_link
    return stated.model_copy(update=changed)


def _fit(anchors: Sequence[Row], related: Sequence[Row], traces: Path | None) -> Anchored:
    first, last = anchors[0], anchors[-1]
    wanted = [
        Anchor(NAMED.get(row.capacity or "", row.capacity or ""), row.measured_tpot_s)
        for row in anchors
    ]
    return fit(
        stated_profile(first),
        shape_of(first),
        routing_for(first, related, traces).trace,
        engine_of(first),
        wanted,
        evict=last.policy,
        scope=last.scope,
        miss=last.miss,
        prefetch=last.prefetch,
    )
