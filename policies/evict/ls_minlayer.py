"""Least-Stale by layer alone: the key last used in the lowest layer leaves first.

As a key is used in its own layer only, that is the key of the lowest layer. So reads a plan of an
expert pager for DeepSeek-V3 SpecMD (arXiv:2602.03921): least recently used is replaced by the least
`last_used_layer`, and its test wants layer 3 to leave before layer 59. Nothing of it depends on
what was used when. Of one layer the contract's tie rule decides.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specmd.policy import Event, IntArray, World, policy


@policy("ls_minlayer", source="a plan of an expert pager, after arXiv:2602.03921", compiled=True)
class MinLayer(NamedTuple):
    """Nothing is kept but where keys belong."""

    layer: IntArray  # (keys,)

    @classmethod
    def create(cls, world: World) -> MinLayer:
        """Write down the layers."""
        return cls(np.arange(world.num_keys) // world.num_experts)

    def rank(self, key: int, event: Event) -> float:
        """Rank by layer."""
        return self.layer[key]
