"""What is executed of the router's choice: the stages `route` and `miss` of an event.

An event's tokens come with their *true* choice. A routing policy may change it, given the logits
and what is resident; U is then the union of the *executed* choice, and is served like any other. A
miss policy answers for each missing key: fetch it, have the host compute it, now or for the next
layer to add, fetch a low-bit copy, drop it, or let other experts stand in for it, token by token.
What became of every true pair of token and expert is counted by its weight, so that `kept`,
low-bit, substituted and dropped mass add up to all of it.

The functions below take the places of four hooks (`specmd.core.hooks`) where a run has such a
policy; a run without is compiled as if they did not exist.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from specmd.core.event import Event, FloatArray, IntArray, KeyArray, World, event_of
from specmd.core.hooks import answer, compute_on_host, defer, prepare, route
from specmd.core.rows import (
    DEFER,
    DROP,
    EXACT,
    HOST,
    LEFT_OUT,
    LOW,
    LOWBIT,
    NO_EXPERT,
    PUT_OFF,
    REPLACED,
    Rows,
    place_of,
)
from specmd.core.state import (
    DEFERRED,
    DROPPED,
    HOST_EXPERTS,
    LOG_DEFER,
    LOG_DROP,
    LOG_HOST,
    LOG_LOWBIT,
    LOG_STAND_IN,
    LOG_SUBSTITUTE,
    LOWBIT_FETCHES,
    NUM_COUNTERS,
    READY,
    REROUTED,
    SUBSTITUTE_USES,
    SUBSTITUTED,
    TRUE_ACCESSES,
    TRUE_HITS,
    Chunk,
    Core,
    log,
)
from specmd.core.turnover import note_use

NUM_MASSES = 5
# Entries of `Execution.count`.
EXECUTED, STAND_INS = range(2)


class Execution(NamedTuple):
    """State of the policies of routing and misses, and of the present event."""

    router: Any
    misser: Any
    rows: Rows
    keys: KeyArray  # (experts,) U, ascending, then the stand-ins that are not of U
    loads: KeyArray  # (experts,) tokens of each
    gates: FloatArray  # (experts,)
    uses: IntArray  # (experts,) scratch: tokens by expert
    sums: FloatArray  # (experts,) scratch: weights by expert
    later: KeyArray  # (experts,) scratch: keys put off to the next layer
    low: IntArray  # (keys,) 1 if the copy fetched last on demand was one of few bits
    mass: FloatArray  # (2 * layers * NUM_MASSES,), see `specmd.core.masses`
    count: IntArray  # type: ignore[assignment]  # keys of U, stand-ins
    low_share: float  # bytes of a low-bit copy, as a share of the expert's
    has_rows: int
    renormalises: int  # weights of a token of which experts were left out are scaled up


def make_execution(
    world: World,
    router: Any,
    misser: Any,
    *,
    tokens: int,
    has_rows: bool,
    low_share: float = 1.0,
    rule_renormalises: bool = True,
    renormalises: bool = False,
) -> Execution:
    """Build it for events of at most so many tokens.

    Args:
        world: sizes.
        router: state of the routing policy, or ().
        misser: state of the miss policy, or ().
        tokens: of the widest step.
        has_rows: whether token rows are told at all; splits between link and host need none.
        low_share: bytes of a low-bit copy over those of the expert.
        rule_renormalises: the model's rule: softmax over the executed experts, not over all.
        renormalises: scale a token's weights up where the miss policy leaves experts out.

    """
    experts, pairs = world.num_experts, tokens * world.top_k if has_rows else 0
    numbers, reals = np.zeros(pairs, np.int64), np.zeros(pairs)
    rows = Rows(
        tokens=np.zeros(1, np.int64),
        true_ids=numbers.copy(),
        true_weights=reals.copy(),
        logits=np.zeros(tokens * experts if has_rows else 0),
        ids=numbers.copy(),
        weights=reals.copy(),
        fate=numbers.copy(),
        stand_in=numbers.copy(),
        order=np.zeros(experts, np.int64),
        score=np.zeros(experts),
        chance=np.zeros(experts),
        top_k=world.top_k,
        experts=experts,
        renormalises=int(rule_renormalises),
    )
    return Execution(
        router=router,
        misser=misser,
        rows=rows,
        keys=np.zeros(experts, np.uint32),
        loads=np.zeros(experts, np.uint32),
        gates=np.zeros(experts),
        uses=np.zeros(experts, np.int64),
        sums=np.zeros(experts),
        later=np.zeros(experts, np.uint32),
        low=np.zeros(world.num_keys, np.int64),
        mass=np.zeros(2 * world.num_layers * NUM_MASSES),
        count=np.zeros(2, np.int64),
        low_share=float(low_share),
        has_rows=int(has_rows),
        renormalises=int(renormalises),
    )


def reroute(core: Core, chunk: Chunk, index: int, event: Event) -> Event:
    """Read the event's rows, let the routing policy choose, and build U of what it chose."""
    execution: Execution = core.execution
    if execution.has_rows == 0:
        return event
    rows = execution.rows
    row = (event.phase * event.num_layers + event.layer) * NUM_COUNTERS
    read_rows(rows, chunk, index, event)
    route(execution.router, event, rows, core)
    unite(execution, event)
    for i in range(event.start, event.stop):
        core.counters[row + TRUE_HITS] += core.state[event.keys[i]] == READY
        core.counters[row + REROUTED] += (
            execution.uses[event.keys[i] - event.layer * event.num_experts] == 0
        )
    core.counters[row + TRUE_ACCESSES] += event.stop - event.start
    return rerouted(core, event)


def rerouted(core: Core, event: Event) -> Event:
    """Return the event that is served in place of the true one."""
    execution: Execution = core.execution
    if execution.has_rows == 0:
        return event
    gates = execution.gates if len(event.gates) > 0 else event.gates
    count = execution.count[EXECUTED]
    return event_of(event, 0, count, execution.keys, execution.loads, gates)


def read_rows(rows: Rows, chunk: Chunk, index: int, event: Event) -> None:
    """Copy what the tokens of an event chose."""
    choices = chunk.choices
    step = index // choices.layers
    first = choices.token_start[step]
    rows.tokens[0] = choices.token_start[step + 1] - first
    layer = event.layer % choices.layers
    for token in range(rows.tokens[0]):
        line = (first + token) * choices.layers + layer
        for j in range(rows.top_k):
            i = token * rows.top_k + j
            rows.true_ids[i] = choices.ids[line * rows.top_k + j]
            rows.ids[i] = rows.true_ids[i]
            rows.true_weights[i] = choices.weights[line * rows.top_k + j]
            rows.weights[i] = rows.true_weights[i]
            rows.fate[i] = EXACT
        if len(choices.logits) > 0:
            for expert in range(rows.experts):
                rows.logits[token * rows.experts + expert] = choices.logits[
                    line * rows.experts + expert
                ]


def unite(execution: Execution, event: Event) -> None:
    """Build U: the union of the executed choices, ascending, with tokens and weight of each."""
    rows = execution.rows
    for expert in range(rows.experts):
        execution.uses[expert] = 0
        execution.sums[expert] = 0.0
    for i in range(rows.tokens[0] * rows.top_k):
        if rows.ids[i] != NO_EXPERT:
            execution.uses[rows.ids[i]] += 1
            execution.sums[rows.ids[i]] += rows.weights[i]
    at = 0
    for expert in range(rows.experts):
        if execution.uses[expert] > 0:
            execution.keys[at] = event.layer * event.num_experts + expert
            execution.loads[at] = execution.uses[expert]
            execution.gates[at] = execution.sums[expert]
            at += 1
    execution.count[EXECUTED] = at
    execution.count[STAND_INS] = 0


def answer_misses(core: Core, policy: Any, link: Any, row: int, event: Event, missing: int) -> int:
    """Ask for each missing key what is to be done; return how many are to be fetched.

    Those are the first of `core.missing` then, in their order. What is put off goes to the host
    behind all that this event waits for; nothing is where no layer follows, or no rows are told.
    """
    execution: Execution = core.execution
    rows = execution.rows
    prepare(execution.misser, event, core, missing)
    fetched = later = 0
    for i in range(missing):
        key = core.missing[i]
        said = answer(execution.misser, key, event, rows, core)
        if said == DEFER and (execution.has_rows == 0 or event.layer == event.num_layers - 1):
            said = HOST
        place = place_of(event, key)
        load = event.tokens[place]
        if execution.has_rows != 0:
            load = settle_pairs(rows, key - event.layer * event.num_experts, said)
            event.tokens[place] = load
        if load == 0:
            stands = has_stand_in(rows, key - event.layer * event.num_experts)
            core.counters[row + (SUBSTITUTED if stands else DROPPED)] += 1
            log(core, LOG_SUBSTITUTE if stands else LOG_DROP, key)
        elif said == HOST:
            core.counters[row + HOST_EXPERTS] += 1
            log(core, LOG_HOST, key)
            compute_on_host(link, core, key, load, event)
        elif said == DEFER:
            core.counters[row + HOST_EXPERTS] += 1
            core.counters[row + DEFERRED] += 1
            log(core, LOG_DEFER, key)
            execution.later[later] = key
            later += 1
        else:
            execution.low[key] = 0
            if said == LOWBIT:
                execution.low[key] = 1
                core.counters[row + LOWBIT_FETCHES] += 1
                log(core, LOG_LOWBIT, key)
            core.missing[fetched] = key
            fetched += 1
    for i in range(later):
        key = execution.later[i]
        defer(link, core, key, event.tokens[place_of(event, key)], event)
    if execution.has_rows != 0:
        seat_stand_ins(core, policy, row, event)
    return fetched


def settle_pairs(rows: Rows, expert: int, said: int) -> int:
    """Carry an answer out on the pairs of an expert; return the tokens that still need it."""
    left = 0
    for i in range(rows.tokens[0] * rows.top_k):
        if rows.ids[i] == expert and rows.fate[i] == EXACT:
            if said == DROP:
                rows.fate[i] = LEFT_OUT
            else:
                left += 1
                if said == LOWBIT:
                    rows.fate[i] = LOW
                elif said == DEFER:
                    rows.fate[i] = PUT_OFF
    return left


def has_stand_in(rows: Rows, expert: int) -> bool:
    """Tell whether another expert stands in for one."""
    for i in range(rows.tokens[0] * rows.top_k):
        if rows.ids[i] == expert and rows.fate[i] == REPLACED:
            return True
    return False


def seat_stand_ins(core: Core, policy: Any, row: int, event: Event) -> None:
    """Give stand-ins their tokens; those outside U are held and touched like hits."""
    execution: Execution = core.execution
    rows = execution.rows
    for i in range(rows.tokens[0] * rows.top_k):
        if rows.fate[i] != REPLACED or is_merged(rows, i):
            continue
        key = event.layer * event.num_experts + rows.stand_in[i]
        place, stop = event.start, event.stop + execution.count[STAND_INS]
        while place < stop and event.keys[place] != key:
            place += 1
        if place == stop:
            execution.count[STAND_INS] += 1
            event.keys[place] = key
            event.tokens[place] = 0
            core.hold[key] += 1
            core.counters[row + SUBSTITUTE_USES] += 1
            log(core, LOG_STAND_IN, key)
            note_use(core, policy, key, event)
        event.tokens[place] += 1


def is_merged(rows: Rows, pair: int) -> bool:
    """Tell whether a pair's stand-in is executed by the token already."""
    first = pair // rows.top_k * rows.top_k
    for i in range(first, first + rows.top_k):
        if rows.fate[i] == REPLACED:
            if i < pair and rows.stand_in[i] == rows.stand_in[pair]:
                return True
        elif rows.fate[i] != LEFT_OUT and rows.ids[i] == rows.stand_in[pair]:
            return True
    return False
