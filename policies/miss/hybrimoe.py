"""HybriMoE: link and host work off an event's misses from both ends, until they meet.

S. Zhong et al., "HybriMoE: hybrid CPU-GPU scheduling and cache management for efficient MoE
inference", arXiv:2504.05897, section on the schedule within a layer: misses in order of their
tokens; the host takes the smallest that is left, the link the largest, whichever is done with its
own sooner. What each takes is known from the hardware profile.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    FETCH,
    HOST,
    Core,
    Event,
    FloatArray,
    IntArray,
    Rows,
    World,
    place_of,
    policy,
)


@policy(
    "hybrimoe", axis="miss", source="HybriMoE, arXiv:2504.05897", needs=["rates"], compiled=True
)
class HybriMoE(NamedTuple):
    """Who takes each key of the event, and times."""

    said: IntArray  # (keys,)
    order: IntArray  # (experts,) scratch: tokens * experts + expert, ascending
    rates: FloatArray  # seconds: link, host, host for each further token, device

    @classmethod
    def create(cls, world: World) -> HybriMoE:
        """Build it."""
        said, order = np.zeros(world.num_keys, np.int64), np.zeros(world.num_experts, np.int64)
        return cls(said, order, world.rates)

    def prepare(self, event: Event, core: Core, missing: int) -> None:
        """Share the misses out."""
        experts, first = event.num_experts, event.layer * event.num_experts
        for i in range(missing):
            key = core.missing[i]
            mine = event.tokens[place_of(event, key)] * experts + key - first
            place = i
            while place > 0 and self.order[place - 1] > mine:
                self.order[place] = self.order[place - 1]
                place -= 1
            self.order[place] = mine
        low, high = 0, missing - 1
        host_s = link_s = 0.0
        while low <= high:
            tokens = self.order[low] // experts
            takes_s = self.rates[1] + (tokens - 1) * self.rates[2]
            if host_s + takes_s <= link_s + self.rates[0]:
                self.said[first + self.order[low] % experts] = HOST
                host_s += takes_s
                low += 1
            else:
                self.said[first + self.order[high] % experts] = FETCH
                link_s += self.rates[0]
                high -= 1

    def answer(self, key: int, event: Event, rows: Rows, core: Core) -> int:
        """Say who takes it."""
        return self.said[key]
