"""Seats: which of a few rows of state belongs to which request in flight.

A request that a decode step goes without has ended: a decode step has a token of every request in
flight. In steps that hold prompts too, others may be waiting. Where seats run out, the request
that was not seen for longest is taken for the new one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.core.event import DECODE, Event, IntArray

SEATS = 64


class Seats(NamedTuple):
    """Rows of state for the requests in flight."""

    request: IntArray  # (SEATS,) whose it is, -1 free
    seen: IntArray  # (SEATS,) step in which the request was seen last


def make_seats() -> Seats:
    """Build seats that are all free."""
    return Seats(np.full(SEATS, -1, np.int64), np.full(SEATS, -1, np.int64))


def seat_of(seats: Seats, request: int, step: int) -> int:
    """Return the seat of a request that has a token in a step; it takes one if it has none."""
    best = 0
    for seat in range(len(seats.request)):
        if seats.request[seat] == request:
            seats.seen[seat] = step
            return seat
        if seats.request[best] != -1 and (
            seats.request[seat] == -1 or seats.seen[seat] < seats.seen[best]
        ):
            best = seat
    seats.request[best] = request
    seats.seen[best] = step
    return best


def leaves(seats: Seats, seat: int, event: Event) -> bool:
    """Tell whether the request of a seat has ended, as a step shows whose requests are seated.

    The seat is then free.
    """
    if seats.request[seat] == -1 or event.phase != DECODE or seats.seen[seat] == event.step:
        return False
    seats.request[seat] = -1
    return True
