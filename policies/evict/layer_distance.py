"""Layer distance: the layer whose turn comes latest leaves first, so the one just passed.

Layers run in a fixed cycle: a key of layer l is not needed before `(l - now - 1) mod L` other
layers have run. Of one layer, the key touched longest ago leaves first (`ties=recency`), or the
one used least often (`ties=frequency`). The minimal layer-aware policy. The distance is one of the
four terms by which HOBBIT (P. Tang et al., arXiv:2411.01433) ranks experts; here it is alone.
"""

from typing import Literal, NamedTuple, Self

import numpy as np

from specmd.policy import (
    NOBODY,
    Core,
    Event,
    IntArray,
    KeyArray,
    Lists,
    World,
    evictable,
    make_lists,
    place_ordered,
    policy,
    unlink,
)


@policy(
    "layer_distance", source="HOBBIT, arXiv:2411.01433", remembers="ties=frequency", compiled=True
)
class LayerDistance(NamedTuple):
    """One list a layer by last touch, the latest at the front; and use counts."""

    layers: Lists
    last: IntArray
    uses: IntArray
    layer: KeyArray
    by_frequency: int

    @classmethod
    def create(cls, world: World, *, ties: Literal["recency", "frequency"] = "recency") -> Self:
        """Build the empty lists."""
        lists, zero = make_lists(world.num_keys, world.num_layers), np.zeros(world.num_keys, int)
        layer = (np.arange(world.num_keys) // world.num_experts).astype(np.uint32)
        return cls(lists, zero, zero.copy(), layer, int(ties == "frequency"))

    def on_event(self, event: Event) -> None:
        """Count uses."""
        for i in range(event.start, event.stop):
            self.uses[event.keys[i]] += 1

    def on_use(self, key: int, pool: int, event: Event) -> None:
        """Move to the front of its layer."""
        unlink(self.layers, key)
        place_ordered(self.layers, self.layer[key], key, self.last, event.clock)

    def on_insert(self, key: int, pool: int, event: Event) -> None:
        """Enter at the front of its layer."""
        place_ordered(self.layers, self.layer[key], key, self.last, event.clock)

    def on_evict(self, key: int, pool: int, event: Event) -> None:
        """Leave its layer's list."""
        unlink(self.layers, key)

    def victim(self, incoming: int, pool: int, core: Core, event: Event) -> int:
        """Go back through the cycle from the present layer; within a layer from the back."""
        for back in range(event.num_layers):
            end = self.layers.size + (event.layer - back) % event.num_layers
            best, key = NOBODY, self.layers.prev[end]
            while key != end and core.pool[key] == pool:
                if evictable(core, key) and (best == NOBODY or self.uses[key] < self.uses[best]):
                    best = key
                    if not self.by_frequency:
                        break
                key = self.layers.prev[key]
            if best != NOBODY:
                return best
        return NOBODY
