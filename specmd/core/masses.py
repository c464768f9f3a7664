"""The end of an event whose choice may have been changed: what became of every true pair.

Each true pair of token and expert counts by its router weight as kept, low-bit, substituted or
dropped; the four add up to all of it. What was put off to the next layer is substituted: what its
own layer adds is not what the model would. Then the rows are put in the form in which they are
computed.
"""

from __future__ import annotations

from specmd.core.event import Event, event_of
from specmd.core.execution import NUM_MASSES, STAND_INS, Execution
from specmd.core.rows import EXACT, LEFT_OUT, LOW, NO_EXPERT, PUT_OFF, REPLACED
from specmd.core.state import (
    CHANGED_ROWS,
    LOWBIT_HITS,
    NUM_COUNTERS,
    PREFETCHED,
    READY,
    ROWS,
    Core,
)

# Masses, a row of them by phase and layer: of all true pairs, and of what became of them.
TRUE_MASS, KEPT_MASS, LOWBIT_MASS, SUBSTITUTED_MASS, DROPPED_MASS = range(5)


def close(core: Core, event: Event) -> Event:
    """Count what became of the true pairs, put the executed rows in place, release stand-ins.

    Returns the event as it is computed: U, then the stand-ins.
    """
    execution: Execution = core.execution
    for i in range(event.start, event.stop):
        key = event.keys[i]
        if core.state[key] == READY and is_low(core, key):
            row = (event.phase * event.num_layers + event.layer) * NUM_COUNTERS
            core.counters[row + LOWBIT_HITS] += 1
    if execution.has_rows == 0:
        return event
    rows = execution.rows
    for i in range(rows.tokens[0] * rows.top_k):
        expert = rows.ids[i]
        if expert == NO_EXPERT or rows.fate[i] != EXACT:
            continue
        if is_low(core, event.layer * event.num_experts + expert):
            rows.fate[i] = LOW
    for token in range(rows.tokens[0]):
        weigh_row(core, token, event)
        finish_row(execution, token)
    stop = event.stop + execution.count[STAND_INS]
    for i in range(event.stop, stop):
        core.hold[event.keys[i]] -= 1
    return event_of(event, event.start, stop, event.keys, event.tokens, event.gates)


def is_low(core: Core, key: int) -> bool:
    """Tell whether the copy of a key in the cache is one of few bits; prefetched ones never are."""
    return bool(core.execution.low[key] != 0 and core.mark[key] & PREFETCHED == 0)


def weigh_row(core: Core, token: int, event: Event) -> None:
    """Add a token's true weights to the masses of what became of them."""
    execution: Execution = core.execution
    rows = execution.rows
    row = event.phase * event.num_layers + event.layer
    base = row * NUM_MASSES
    first, stop = token * rows.top_k, (token + 1) * rows.top_k
    strangers = 0  # executed experts that are no true ones: they stand for those that are missing
    for i in range(first, stop):
        if rows.ids[i] != NO_EXPERT:
            strangers += 1
            for j in range(first, stop):
                if rows.true_ids[j] == rows.ids[i]:
                    strangers -= 1
    changed = 0
    for j in range(first, stop):
        if rows.true_ids[j] == NO_EXPERT:
            continue
        weight = rows.true_weights[j]
        execution.mass[base + TRUE_MASS] += weight
        kind = DROPPED_MASS
        found = False
        for i in range(first, stop):
            if rows.ids[i] == rows.true_ids[j]:
                found = True
                if rows.fate[i] == EXACT:
                    kind = KEPT_MASS
                elif rows.fate[i] == LOW:
                    kind = LOWBIT_MASS
                elif rows.fate[i] == REPLACED or rows.fate[i] == PUT_OFF:
                    kind = SUBSTITUTED_MASS
        if not found and strangers > 0:
            strangers -= 1
            kind = SUBSTITUTED_MASS
        execution.mass[base + kind] += weight
        if kind > LOWBIT_MASS:
            changed = 1
    core.counters[row * NUM_COUNTERS + ROWS] += 1
    core.counters[row * NUM_COUNTERS + CHANGED_ROWS] += changed


def finish_row(execution: Execution, token: int) -> None:
    """Write what a token really executes: stand-ins, none for what is left out, final weights."""
    rows = execution.rows
    first, stop = token * rows.top_k, (token + 1) * rows.top_k
    before = after = 0.0
    for i in range(first, stop):
        before += rows.weights[i]
        if rows.fate[i] == LEFT_OUT:
            rows.ids[i] = NO_EXPERT
            rows.weights[i] = 0.0
        after += rows.weights[i]
    for i in range(first, stop):
        if rows.fate[i] == REPLACED:
            rows.ids[i] = rows.stand_in[i]
            for j in range(first, stop):
                if j != i and rows.ids[j] == rows.ids[i] and (rows.fate[j] != REPLACED or j < i):
                    rows.weights[j] += rows.weights[i]  # it has that expert already
                    rows.ids[i] = NO_EXPERT
                    rows.weights[i] = 0.0
                    break
    if execution.renormalises and 0.0 < after < before:
        for i in range(first, stop):
            rows.weights[i] *= before / after


def moved_bytes(core: Core, key: int, n_bytes: float) -> float:
    """Return the bytes of the copy of a key that is fetched."""
    execution: Execution = core.execution
    share: float = execution.low_share if execution.low[key] != 0 else 1.0
    return n_bytes * share
