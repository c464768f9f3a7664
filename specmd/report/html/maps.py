"""What runs say of every expert and of one step, for as many runs as a page has room for.

The first run of every scene comes before the second of any: the composition to look at first, at
the capacity in the middle. What two runs have in common (what was asked for does not depend on the
policy) is written once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from specmd.report.html.points import digits
from specmd.report.html.scenes import Scene, order
from specmd.runs.metrics import PARTS

MOST_NUMBERS = 260_000
"""Numbers of experts and steps that a page holds, about four characters each."""
COUNTS = ("asked", "missed", "late", "prefetched")


@dataclass(frozen=True)
class Maps:
    """Arrays, each once, and which of them belong to a point; `left_out` points had no room."""

    arrays: list[list[int | float | None]] = field(default_factory=list)
    of: list[dict[str, Any]] = field(default_factory=list)
    left_out: int = 0
    absent: int = 0


def maps(scenes: Sequence[Scene], most: int = MOST_NUMBERS) -> Maps:
    """Collect details of the runs that come first, until the room is used up."""
    arrays: list[list[int | float | None]] = []
    places: dict[tuple[Any, ...], int] = {}
    of: list[dict[str, Any]] = []
    room, left_out, absent = most, 0, 0

    def keep(numbers: list[Any]) -> int | None:
        nonlocal room
        if not any(numbers):
            return None
        key = tuple(numbers)
        if key not in places:
            places[key] = len(arrays)
            arrays.append(numbers)
            room -= len(numbers)
        return places[key]

    for number, name, slots in _turns(scenes):
        run = scenes[number].runs[name, slots][0]
        if room <= 0:
            left_out += 1
            continue
        details = run.details
        if details is None or not details.asked.size:
            absent += 1
            continue
        found: dict[str, Any] = {"scene": number, "policy": name, "slots": slots}
        found["layers"], found["experts"] = details.asked.shape
        found["bytes"] = run.trace.expert_bytes
        for count in COUNTS:
            found[count] = keep(getattr(details, count).ravel().tolist())
        for column, part in enumerate(PARTS):
            seconds = details.step_parts_s[:, column].tolist() if details.step_parts_s.size else []
            found[part] = keep([digits(1e3 * each, 3) for each in seconds])
        of.append(found)
    return Maps(arrays, of, left_out, absent)


def _turns(scenes: Sequence[Scene]) -> Iterator[tuple[int, str, int]]:
    """Take turns between scenes: their points, capacities from the middle, then compositions."""
    queues = []
    for number, scene in enumerate(scenes):
        slots = scene.slots
        middle = slots[len(slots) // 2]
        names = order(scene)
        near = sorted(slots, key=lambda each: abs(slots.index(each) - slots.index(middle)))
        first = [(number, name, middle) for name in names[:4]]
        rest = [(number, name, each) for each in near for name in names]
        queues.append([place for place in dict.fromkeys(first + rest) if place[1:] in scene.runs])
    for turn in range(max(map(len, queues), default=0)):
        for queue in queues:
            if turn < len(queue):
                yield queue[turn]


def expert_rows(maps: Maps, place: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each expert of each layer, as the page makes them."""
    counts = {
        name: maps.arrays[place[name]]
        if place[name] is not None
        else [0] * (place["layers"] * place["experts"])
        for name in COUNTS
    }
    rows = []
    for i in range(place["layers"] * place["experts"]):
        asked, missed, late, ahead = (int(counts[name][i] or 0) for name in COUNTS)
        rate = 100 * (asked - missed - late) / asked if asked else None
        traffic = (missed + ahead) * place["bytes"] / 1e6 if place["bytes"] else None
        layer, expert = divmod(i, place["experts"])
        row = {"layer": layer, "expert": expert, "hit_rate": rate, "traffic": traffic}
        rows.append(row | {name: int(counts[name][i] or 0) for name in COUNTS})
    return rows


def step_rows(maps: Maps, places: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the stretches of a step, one after another, as the page makes them."""
    rows = []
    for place in places:
        at = 0.0
        for layer in range(place["layers"]):
            for part, about in PARTS.items():
                if place[part] is None:
                    continue
                ms = float(maps.arrays[place[part]][layer] or 0)
                if ms > 0:
                    row = {"policy": place["policy"], "layer": layer, "part": about.title}
                    rows.append(row | {"start": at, "end": at + ms, "ms": ms})
                    at += ms
    return rows
