"""The tokens of one event: what their router chose, and what is executed in its place.

Policies of routing and misses read and write these rows (`specmd.core.execution` carries out what
they say); the functions here are what they may use.
"""

from __future__ import annotations

from typing import NamedTuple

from specmd.core.event import Event, FloatArray, IntArray
from specmd.core.order.votes import softmax
from specmd.core.state import EMPTY, READY, Core

# What a miss policy may answer; DEFER: the host computes it, and the next layer adds its output.
FETCH, HOST, LOWBIT, DROP, DEFER = range(5)
# What becomes of a pair of token and expert.
EXACT, LOW, REPLACED, LEFT_OUT, PUT_OFF = range(5)
NO_EXPERT = -1


class Rows(NamedTuple):
    """The tokens of one event. Pair `t * top_k + j` is the j-th expert of token t."""

    tokens: IntArray  # (1,) how many there are
    true_ids: IntArray  # (pairs,) experts by falling weight; NO_EXPERT where a token chose fewer
    true_weights: FloatArray  # (pairs,)
    logits: FloatArray  # (tokens * experts,) of the router, or empty
    ids: IntArray  # (pairs,) experts executed, NO_EXPERT where fewer; at first the true ones
    weights: FloatArray  # (pairs,) with which they are summed
    fate: IntArray  # (pairs,) EXACT, LOW, REPLACED, LEFT_OUT or PUT_OFF
    stand_in: IntArray  # (pairs,) expert in place of a replaced one
    order: IntArray  # (experts,) scratch of `rank_experts`
    score: FloatArray  # (experts,) scratch for policies
    chance: FloatArray  # (experts,) what `read_chances` read last
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


def read_chances(rows: Rows, token: int) -> None:
    """Put the softmax of a token's logits over all experts into `rows.chance`."""
    base = token * rows.experts
    softmax(rows.logits[base : base + rows.experts], rows.chance)


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
        read_chances(rows, token)
        for i in range(first, first + count):
            rows.weights[i] = rows.chance[rows.ids[i]]
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


def least_before(rows: Rows, expert: int, core: Core, event: Event, only_missing: int) -> float:
    """Return the least share of its weight that a token gives to what it ranks above an expert.

    Of the tokens that need the expert; of what goes before, all (0) or what is missing, too (1).
    """
    first, least = event.layer * event.num_experts, 2.0
    for pair in range(pairs(rows)):
        if not needs_it(rows, pair, expert):
            continue
        before, begin = 0.0, pair // rows.top_k * rows.top_k
        for other in range(begin, begin + rows.top_k):
            mine, its = rows.weights[pair], rows.weights[other]
            heavier = its > mine or (its == mine and other < pair)
            if not heavier or rows.ids[other] == NO_EXPERT:
                continue
            if only_missing == 0 or core.state[first + rows.ids[other]] == EMPTY:
                before += share(rows, other)
        least = min(least, before)
    return least


def replace_by_nearest(
    rows: Rows, key: int, core: Core, event: Event, near: FloatArray, least: float
) -> None:
    """Let the READY expert nearest to a missing one stand in for all tokens, if any is near.

    `near` (keys * experts,) says how near each expert of its layer is to a key; nearer than `least`
    counts.
    """
    experts = event.num_experts
    best, most = NO_EXPERT, least
    for other in range(experts):
        if near[key * experts + other] > most and is_ready(core, event, other):
            best, most = other, near[key * experts + other]
    if best != NO_EXPERT:
        for pair in range(pairs(rows)):
            if needs_it(rows, pair, key - event.layer * experts):
                replace(rows, pair, best)


def place_of(event: Event, key: int) -> int:
    """Return where a key of U stands."""
    place = event.start
    while event.keys[place] != key:
        place += 1
    return place
