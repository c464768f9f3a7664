"""Hysteresis: a key enters only if it is hotter, by a factor, than a resident that has dwelt.

Heat is uses, fading with every step. The factor and the dwell keep two keys of like heat from
taking turns in one slot (llama.cpp pull request 26824, https://github.com/ggml-org/llama.cpp).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import Core, Event, FloatArray, IntArray, Width, World, policy


@policy(
    "hysteresis",
    axis="admission",
    source="llama.cpp pull request 26824",
    remembers=True,
    compiled=True,
)
class Hysteresis(NamedTuple):
    """Heat of all keys, and when the residents came."""

    heat: FloatArray  # (keys,) as of `seen`
    seen: IntArray  # (keys,) step of the last use
    came: IntArray  # (keys,) step in which the key was last let in
    factor: float
    fade: float
    dwell: int

    @classmethod
    def create(
        cls, world: World, *, factor: float = 1.3, fade: float = 0.999, dwell: Width = 0
    ) -> Hysteresis:
        """Build it; heat is multiplied by `fade` a step, `dwell` is in steps."""
        came = np.zeros(world.num_keys, np.int64)
        return cls(np.zeros(world.num_keys), came.copy(), came, factor, fade, dwell)

    def observe(self, event: Event) -> None:
        """Heat the keys of U."""
        for i in range(event.start, event.stop):
            key = event.keys[i]
            faded = self.heat[key] * self.fade ** float(event.step - self.seen[key])
            self.heat[key] = faded + 1.0
            self.seen[key] = event.step

    def admits(self, key: int, pool: int, core: Core, event: Event) -> bool:
        """Note when it came, should it come."""
        self.came[key] = event.step
        return True

    def outweighs(self, key: int, leaving: int, core: Core, event: Event) -> bool:
        """Compare the heats."""
        if event.step - self.came[leaving] < self.dwell:
            return False
        resident = self.heat[leaving] * self.fade ** float(event.step - self.seen[leaving])
        return self.heat[key] > self.factor * resident
