"""The compute timeline of a device: what it spends time on, by the parts of a step.

Its `clock` is a timed link (`specmd.simulation.timed_link`).
"""

from __future__ import annotations

from typing import Any

from specmd.core.event import PREFILL, Event
from specmd.runs.metrics import PART_COLUMN
from specmd.simulation.costs import CostCoefficients, expert_s

DEVICE = 0  # whose timeline computes: one today
# How a key of this event is wanted.
READY_KEY, LATE_KEY, MISSED_KEY, HOST_KEY, LATER_KEY = range(5)
# Columns of the parts of a step.
COMPUTE, OVERHEAD = PART_COLUMN["compute"], PART_COLUMN["overhead"]
CPU_EXPERT = PART_COLUMN["cpu_expert"]
DEMAND_STALL, LATE_STALL = PART_COLUMN["demand_stall"], PART_COLUMN["late_prefetch_stall"]
DISK_STALL = PART_COLUMN["disk_stall"]
NUM_PARTS = len(PART_COLUMN)
TRAIL = 64  # steps whose time by layer is remembered, the last ones


def costs_of(clock: Any, event: Event) -> CostCoefficients:
    """Return the costs of a prefill, or of decode."""
    chosen: CostCoefficients = clock.prefill if event.phase == PREFILL else clock.costs
    return chosen


def compute(clock: Any, event: Event, key: int, position: int) -> None:
    """Compute an expert, the event's `position`-th."""
    costs = costs_of(clock, event)
    seconds = expert_s(costs, clock.tokens[key], clock.size[key])
    spend(clock, event.step * NUM_PARTS, seconds, costs.launch_s)
    clock.done[position] = clock.now_s[DEVICE]


def compute_ready(clock: Any, event: Event) -> int:
    """Compute what is there from the start; return how many that are."""
    computed = 0
    for i in range(event.start, event.stop):
        if clock.wanted[event.keys[i]] == READY_KEY:
            compute(clock, event, event.keys[i], computed)
            computed += 1
    return computed


def count_ready(clock: Any, event: Event) -> int:
    """Count what is there from the start."""
    found = 0
    for i in range(event.start, event.stop):
        if clock.wanted[event.keys[i]] == READY_KEY:
            found += 1
    return found


def spend(clock: Any, row: int, seconds: float, launch_s: float) -> None:
    """Advance the compute timeline; the launch part of `seconds` is overhead."""
    if seconds > 0.0:
        clock.parts[row + COMPUTE] += seconds - launch_s
        clock.parts[row + OVERHEAD] += launch_s
        clock.now_s[DEVICE] += seconds


def remember(clock: Any, event: Event) -> None:
    """Note the parts of the step as they stand at the end of a layer."""
    if len(clock.trail) > 0:
        at = (event.step % TRAIL * event.num_layers + event.layer) * NUM_PARTS
        for part in range(NUM_PARTS):
            clock.trail[at + part] = clock.parts[event.step * NUM_PARTS + part]
