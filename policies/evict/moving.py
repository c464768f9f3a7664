"""Moving: one LRU a layer, and slots move to the layers whose keys come back just after leaving.

Cliffhanger (A. Cidon et al., NSDI 2016, section 4.1): one of the `ghosts` last gone moves `credit`
of a slot to its layer from another, drawn. The layer most above its target gives up its oldest key.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import (
    NOBODY,
    Core,
    Event,
    IntArray,
    Lists,
    World,
    below,
    last_evictable,
    make_lists,
    place_ordered,
    policy,
    unlink,
)


@policy("moving", source="Cliffhanger, NSDI 2016", remembers=True, compiled=True)
class Moving(NamedTuple):
    """The residents of each layer by last touch, its target, and when which key left it."""

    layers: Lists
    last: IntArray
    target: IntArray  # (layers,) slots, with fractions
    size: IntArray  # (layers,) residents
    gone: IntArray  # (layers,) keys that have left
    left: IntArray  # (keys,) how many had left the layer with it; 0 never
    options: tuple[int, float]  # ghosts, credit

    @classmethod
    def create(cls, world: World, *, ghosts: int = 8, credit: float = 0.0625) -> Moving:
        """Build the empty lists and even targets."""
        pool = world.pool[:: world.num_experts]
        lists, target = make_lists(world.num_keys, len(pool)), world.capacity / np.bincount(pool)
        keys, size = np.zeros(world.num_keys, np.int64), np.zeros(len(pool), np.int64)
        return cls(lists, keys, target[pool], size, size * 0, keys * 0, (ghosts, credit))

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Move to the front of its layer."""
        unlink(self.layers, key)
        place_ordered(self.layers, key // event.num_experts, key, self.last, event.clock)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter at the front of its layer; a ghost moves a credit to it."""
        layer, (ghosts, credit) = key // event.num_experts, self.options
        if self.left[key] > 0 and self.gone[layer] - self.left[key] < ghosts:
            other = below(event.num_layers, 0, event.clock * event.num_experts + key)
            if self.target[other] >= 1 + credit and self.target[layer] < event.num_experts:
                self.target[layer] += credit
                self.target[other] -= credit
        place_ordered(self.layers, layer, key, self.last, event.clock)
        self.size[layer] += 1

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave; be remembered for a while."""
        unlink(self.layers, key)
        self.size[key // event.num_experts] -= 1
        self.gone[key // event.num_experts] += 1
        self.left[key] = self.gone[key // event.num_experts]

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Choose from the layer most above its target, of equals the last; what comes counts."""
        chosen, most = NOBODY, -np.inf
        for layer in range(event.num_layers):
            over = self.size[layer] + (incoming // event.num_experts == layer) - self.target[layer]
            if core.pool[layer * event.num_experts] == pool and over >= most:
                key = last_evictable(self.layers, layer, core)
                chosen, most = (key, over) if key != NOBODY else (chosen, most)
        return chosen
