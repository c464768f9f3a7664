"""The host's lane on the clock: what it computes beside the device, and who waits for it.

The host computes one expert after the other. A layer ends no sooner than those of its own that the
host was asked for, and than those that the layer before put off: these are computed behind all that
their own layer waits for.
"""

from __future__ import annotations

from typing import Any

from specmd.core.event import Event
from specmd.simulation.timeline import CPU_EXPERT, DEVICE, HOST_KEY, NUM_PARTS, READY_KEY


def await_host(clock: Any, event: Event) -> None:
    """Wait until the host has computed what this event waits for; the rest the next one does."""
    for i in range(event.start, event.stop):
        if clock.wanted[event.keys[i]] >= HOST_KEY:
            clock.wanted[event.keys[i]] = READY_KEY
    wait_for_host(clock, event)


def wait_for_host(clock: Any, event: Event) -> None:
    """Let the device wait for what the host owes this event."""
    waits_s = clock.owed_s[DEVICE] - clock.now_s[DEVICE]
    if waits_s > 0.0:
        clock.parts[event.step * NUM_PARTS + CPU_EXPERT] += waits_s
        clock.now_s[DEVICE] = clock.owed_s[DEVICE]
    clock.owed_s[DEVICE] = clock.host_s[DEVICE]
