"""Hysteresis: a missed key replaces the coldest resident only if it is 1.3 times as hot.

Heat is uses, fading by 0.999 a step, resident or not. The swap rule of llama.cpp pull request 26824
(2026-08-10, with these defaults); `dwell` is the steps before a resident may be swapped, and `cap`
limits the swaps of a step (0: not at all), as in pull request 27861. The hottest miss is held
against the coldest resident, the next against the next; those that lose pass by: admission is
bypass. Where a key has to leave (forced admission, a prefetch) it is the coldest.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import NOBODY, READY, Core, Event, FloatArray, IntArray, World, evictable, policy


@policy("hysteresis", source="llama.cpp#26824", remembers=True, bypass="bypass", compiled=True)
class Hysteresis(NamedTuple):
    """Heat of all keys, and when the residents entered."""

    heat: FloatArray  # (keys,)
    entry: IntArray  # (keys,) clock
    step: IntArray  # [the present one, swaps in it]
    rule: FloatArray  # [ratio, dwell, cap]

    @classmethod
    def create(
        cls, world: World, *, ratio: float = 1.3, dwell: int = 0, cap: int = 0, bypass: bool = True
    ) -> Hysteresis:
        """Start cold; `bypass` is read by the run."""
        heat, entry = np.zeros(world.num_keys), np.zeros(world.num_keys, np.int64)
        return cls(heat, entry, np.array([-1, 0]), np.array([ratio, dwell, cap or np.inf]))

    def on_event(self, event: Event) -> None:
        """Fade with each step, and heat what is used."""
        if event.step != self.step[0]:
            self.step[0], self.step[1] = event.step, 0
            for key in range(len(self.heat)):
                self.heat[key] *= 0.999
        for i in range(event.start, event.stop):
            self.heat[event.keys[i]] += 1.0

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter."""
        self.entry[key] = event.clock

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Swap if each miss that is left beats a resident; else let the coldest miss pass."""
        miss, coldest, beaten, left = NOBODY, NOBODY, 0, core.slotless[pool] + 1
        for i in range(event.start, event.stop if incoming == NOBODY else event.start):
            key = event.keys[i]
            waits = core.slot[key] == NOBODY and core.pool[key] == pool
            if waits and core.state[key] == READY and colder(self, key, miss):
                miss = key
        ripe = event.clock - max(self.rule[1] * event.num_layers, 1)
        bar = self.heat[miss] if miss != NOBODY else np.inf
        for slot in range(core.first_slot[pool], core.first_slot[pool + 1]):
            key = core.key_in[slot]
            if key != NOBODY and core.state[key] == READY and evictable(core, key):
                swaps = bar > self.rule[0] * self.heat[key] and self.entry[key] <= ripe
                if swaps or miss == NOBODY:
                    beaten += 1
                    coldest = key if colder(self, key, coldest) else coldest
        if miss != NOBODY and (beaten < left or self.step[1] + left > self.rule[2]):
            return miss
        self.step[1] += miss != NOBODY
        return coldest


def colder(policy: Hysteresis, key: int, than: int) -> bool:
    """Tell whether a key is the colder one; of equals the larger key is."""
    heat = policy.heat
    return than == NOBODY or heat[key] < heat[than] or (heat[key] == heat[than] and key > than)
