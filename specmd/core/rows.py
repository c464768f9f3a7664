"""The tokens of one event: what their router chose, and what is executed in its place.

Policies of routing and misses read and write these rows (`specmd.core.execution` carries out what
they say); the functions here are what they may use.
"""

from __future__ import annotations

from math import exp
from typing import NamedTuple

from specmd.core.event import Event, FloatArray, IntArray
from specmd.core.state import READY, Core

# What a miss policy may answer.
FETCH, HOST, LOWBIT, DROP = range(4)
# What becomes of a pair of token and expert.
EXACT, LOW, REPLACED, LEFT_OUT = range(4)
NO_EXPERT = -1


class Rows(NamedTuple):
    """The tokens of one event. Pair `t * top_k + j` is the j-th expert of token t."""

    tokens: IntArray  # (1,) how many there are
    true_ids: IntArray  # (pairs,) experts by falling weight; NO_EXPERT where a token chose fewer
    true_weights: FloatArray  # (pairs,)
    logits: FloatArray  # (tokens * experts,) of the router, or empty
    ids: IntArray  # (pairs,) experts executed, NO_EXPERT where fewer; at first the true ones
    weights: FloatArray  # (pairs,) with which they are summed
    fate: IntArray  # (pairs,) EXACT, LOW, REPLACED or LEFT_OUT
    stand_in: IntArray  # (pairs,) expert in place of a replaced one
    order: IntArray  # (experts,) scratch of `rank_experts`
    score: FloatArray  # (experts,) scratch for policies
    top_k: int
    experts: int
    renormalises: int  # the model's weights of a token add up to 1, whatever it chose


def is_there(core: Core, event: Event, expert: int) -> bool:
    """Tell whether an expert of the event's layer is READY or LOADING."""
    return bool(core.state[event.layer * event.num_experts + expert] != 0)


def is_ready(core: Core, event: Event, expert: int) -> bool:
    """Tell whether an expert of the event's layer is READY."""
    return bool(core.state[event.layer * event.num_experts + expert] == READY)


def rank_experts(rows: Rows, token: int) -> None:
    """Put the experts into `rows.order`: by falling logit of a token, of equals the smaller id."""
    base = token * rows.experts
    for expert in range(rows.experts):
        logit = rows.logits[base + expert]
        place = expert
        while place > 0 and rows.logits[base + rows.order[place - 1]] < logit:
            rows.order[place] = rows.order[place - 1]
            place -= 1
        rows.order[place] = expert


def probability(rows: Rows, token: int, expert: int) -> float:
    """Softmax of a token's logits over all experts, at one."""
    base = token * rows.experts
    top = rows.logits[base]
    for each in range(rows.experts):
        top = max(top, rows.logits[base + each])
    total = 0.0
    for each in range(rows.experts):
        total += exp(rows.logits[base + each] - top)
    return exp(rows.logits[base + expert] - top) / total


def executes(rows: Rows, token: int, expert: int) -> bool:
    """Tell whether a token executes an expert, by its own choice or as a stand-in."""
    for i in range(token * rows.top_k, (token + 1) * rows.top_k):
        if rows.fate[i] == REPLACED:
            if rows.stand_in[i] == expert:
                return True
        elif rows.fate[i] != LEFT_OUT and rows.ids[i] == expert:
            return True
    return False


def chosen(rows: Rows, token: int) -> int:
    """Count the experts that a token truly chose."""
    count = 0
    for i in range(token * rows.top_k, (token + 1) * rows.top_k):
        if rows.true_ids[i] != NO_EXPERT:
            count += 1
    return count


def execute(rows: Rows, token: int, place: int, expert: int) -> None:
    """Make an expert a token's `place`-th executed one."""
    rows.ids[token * rows.top_k + place] = expert


def execute_only(rows: Rows, token: int, count: int) -> None:
    """End a token's executed choice after `count` experts, and weigh them by the model's rule.

    The rule is the softmax over all experts, or over the executed ones; true experts keep what was
    recorded of it.
    """
    first, stop = token * rows.top_k, (token + 1) * rows.top_k
    strange = False
    total = whole = 0.0
    for i in range(first, stop):
        whole += rows.true_weights[i]
        rows.weights[i] = 0.0
        if i >= first + count:
            rows.ids[i] = NO_EXPERT
            continue
        found = False
        for j in range(first, stop):
            if rows.true_ids[j] == rows.ids[i]:
                found = True
                rows.weights[i] = rows.true_weights[j]
        strange |= not found
        total += rows.weights[i]
    if strange:
        total, whole = 0.0, 1.0
        for i in range(first, first + count):
            rows.weights[i] = probability(rows, token, rows.ids[i])
            total += rows.weights[i]
    if rows.renormalises and total > 0.0:
        for i in range(first, first + count):
            rows.weights[i] *= whole / total


def leave_out(rows: Rows, pair: int) -> None:
    """Let nobody compute a pair."""
    rows.fate[pair] = LEFT_OUT


def replace(rows: Rows, pair: int, expert: int) -> None:
    """Let another expert of the layer, which is READY, stand in."""
    rows.fate[pair] = REPLACED
    rows.stand_in[pair] = expert


def share(rows: Rows, pair: int) -> float:
    """Return a pair's weight as a share of all that its token executes."""
    first = pair // rows.top_k * rows.top_k
    total = 0.0
    for i in range(first, first + rows.top_k):
        total += rows.weights[i]
    return rows.weights[pair] / total if total > 0.0 else 0.0


def needs_it(rows: Rows, pair: int, expert: int) -> bool:
    """Tell whether a pair is one of an expert that is to be computed so far."""
    return bool(rows.ids[pair] == expert and rows.fate[pair] == EXACT)


def pairs(rows: Rows) -> int:
    """Count the pairs of the event."""
    return int(rows.tokens[0] * rows.top_k)


def place_of(event: Event, key: int) -> int:
    """Return where a key of U stands."""
    place = event.start
    while event.keys[place] != key:
        place += 1
    return place
