"""A collection of matrices (layers, experts), and how like each of them those being filled are.

What is being filled are a few rows of state, one for each request in flight. The dot product of
each of its layers with that layer of every matrix kept is updated as it is filled, so that a cosine
costs no more than the number of matrices.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from specmd.core.event import Event, FloatArray, IntArray
from specmd.core.order.seats import Seats, seat_of
from specmd.core.order.votes import fill


class Collection(NamedTuple):
    """Matrices kept, and `rows` of them being filled."""

    kept: npt.NDArray[np.float32]  # (layers, experts, most)
    norm: FloatArray  # (layers, most) squared norm of each layer of each
    held: IntArray  # (1,) how many are kept
    own: FloatArray  # (rows, layers, experts)
    own_norm: FloatArray  # (rows, layers)
    dot: FloatArray  # (rows, layers, most)
    product: FloatArray  # (rows, most) sum of the products of the layers so far
    length: FloatArray  # (rows, most) sum of their squared norms
    like: FloatArray  # (rows, most) likeness so far


def make_collection(layers: int, experts: int, most: int, rows: int) -> Collection:
    """Build a collection that keeps at most so many; it is empty."""
    return Collection(
        np.zeros((layers, experts, most), np.float32),
        np.zeros((layers, most)),
        np.zeros(1, np.int64),
        np.zeros((rows, layers, experts)),
        np.zeros((rows, layers)),
        np.zeros((rows, layers, most)),
        *np.zeros((3, rows, most)),
    )


def amend(made: Collection, row: int, layer: int, expert: int, amount: float) -> None:
    """Add to an entry of what is being filled."""
    before = made.own[row, layer, expert]
    made.own[row, layer, expert] = before + amount
    made.own_norm[row, layer] += amount * (before + before + amount)
    dot, kept = made.dot[row, layer], made.kept[layer, expert]
    for i in range(made.held[0]):
        dot[i] += amount * float(kept[i])


def count_choices(made: Collection, seats: Seats, event: Event, outlook: Any) -> None:
    """Count what each token of an event chose in the matrix of its request, which takes a seat."""
    step = event.step - outlook.first_step
    for token in range(outlook.token_start[step], outlook.token_start[step + 1]):
        row = seat_of(seats, outlook.request[token], event.step)
        for expert in outlook.ids[token, event.layer]:
            if expert >= 0:
                amend(made, row, event.layer, expert, 1.0)


def amend_all(made: Collection, row: int, layer: int, amounts: FloatArray, scale: float) -> None:
    """Add to the entries of a layer, (experts,), each amount times `scale`; zero the amounts."""
    for expert in range(len(amounts)):
        amend(made, row, layer, expert, scale * amounts[expert])
        amounts[expert] = 0.0


def add_cosines(made: Collection, row: int, layer: int) -> None:
    """Add to the likeness of each matrix kept the cosine of this layer; layer 0 begins the sum."""
    if layer == 0:
        fill(made.like[row], 0.0)
    like, dot, norm = made.like[row], made.dot[row, layer], made.norm[layer]
    own = made.own_norm[row, layer]
    for i in range(made.held[0]):
        if own > 0.0 and norm[i] > 0.0:
            like[i] += dot[i] / math.sqrt(own * norm[i])


def add_products(made: Collection, row: int, layer: int) -> None:
    """Make the likeness of each matrix kept the cosine of all layers up to this one."""
    if layer == 0:
        fill(made.product[row], 0.0)
        fill(made.length[row], 0.0)
    like, product, length = made.like[row], made.product[row], made.length[row]
    dot, norm = made.dot[row, layer], made.norm[layer]
    own = 1e-300
    for each in range(layer + 1):
        own += made.own_norm[row, each]
    for i in range(made.held[0]):
        product[i] += dot[i]
        length[i] += norm[i]
        like[i] = product[i] / math.sqrt(own * length[i])


def most_like(made: Collection, row: int) -> int:
    """Return the matrix of the greatest likeness, of equals the first; -1 if none is kept."""
    best, like = -1, made.like[row]
    for i in range(made.held[0]):
        if best < 0 or like[i] > like[best]:
            best = i
    return best


def keep(made: Collection, row: int, place: int) -> None:
    """Keep what was filled, in the place of another matrix or as one more."""
    rows, layers, experts = made.own.shape
    made.held[0] = max(made.held[0], place + 1)
    for layer in range(layers):
        made.norm[layer, place] = made.own_norm[row, layer]
        for expert in range(experts):
            made.kept[layer, expert, place] = made.own[row, layer, expert]
        for other in range(rows):
            total = 0.0
            if made.own_norm[other, layer] > 0.0:
                for expert in range(experts):
                    kept = float(made.kept[layer, expert, place])
                    total += made.own[other, layer, expert] * kept
            made.dot[other, layer, place] = total


def begin_anew(made: Collection, row: int) -> None:
    """Begin to fill another matrix."""
    for layer in range(made.own.shape[1]):
        made.own_norm[row, layer] = 0.0
        for expert in range(made.own.shape[2]):
            made.own[row, layer, expert] = 0.0
        for i in range(made.held[0]):
            made.dot[row, layer, i] = 0.0


def retire_by_layer(made: Collection, row: int) -> None:
    """Keep what was filled, where all places are taken in that of the likest; begin another.

    The likest is that of the highest mean cosine of its layers.
    """
    for layer in range(made.own.shape[1]):
        add_cosines(made, row, layer)
    replace_likest(made, row)


def retire_whole(made: Collection, row: int) -> None:
    """Retire by the cosine of all layers together."""
    for layer in range(made.own.shape[1]):
        add_products(made, row, layer)
    replace_likest(made, row)


def replace_likest(made: Collection, row: int) -> None:
    """Keep what was filled, and begin another."""
    full = made.held[0] == made.norm.shape[1]
    keep(made, row, most_like(made, row) if full else made.held[0])
    begin_anew(made, row)
