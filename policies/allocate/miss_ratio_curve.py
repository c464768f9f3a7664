"""Miss-ratio curve: each slot goes to the layer whose LRU would miss least often with one more.

Misses at every capacity come from stack distances of a training trace, event-atomic. The greedy
rule is best where curves are convex (H. S. Stone, J. Turek, J. L. Wolf, "Optimal partitioning of
cache memory", IEEE Transactions on Computers 41(9), 1992); where they are not it can do worse than
an even split, which is then taken. `exact=true` finds the best of all by a dynamic programme.
"""

from __future__ import annotations

import numpy as np

from specmd.policy import World, best_quotas, give_slots, lru_misses, policy


@policy(
    "miss_ratio_curve",
    axis="allocate",
    source="Stone, Turek and Wolf, IEEE TC 41(9), 1992",
    needs=["training"],
)
class MissRatioCurve:
    """Minimises the misses of a training trace."""

    @classmethod
    def create(cls, *, exact: bool = False) -> MissRatioCurve:
        """Build it."""
        return cls(exact)

    def __init__(self, exact: bool) -> None:
        self.exact = exact

    def quotas(self, slots: int, world: World) -> list[int]:
        """Slots of each layer; they add up to `slots`."""
        misses = lru_misses(world)
        if self.exact:
            return best_quotas(slots, world, misses)
        saved = np.pad(misses[:, :-1] - misses[:, 1:], ((0, 0), (0, 1)))
        layers = np.arange(world.num_layers)
        greedy = give_slots(slots, world, lambda found: saved[layers, found])
        each, over = divmod(slots, world.num_layers)
        even = [each + (layer < over) for layer in range(world.num_layers)]
        return min(greedy, even, key=lambda found: misses[layers, found].sum())
