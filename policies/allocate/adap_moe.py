"""AdapMoE: the division with the fewest expected loads, by a dynamic programme.

S. Zhong et al., "AdapMoE: adaptive sensitivity-based expert gating and management for efficient MoE
inference", arXiv:2408.10284, section 4.4. Each of E experts is taken to be chosen alike: of K
chosen, j are missing with the hypergeometric probability of k slots, and one of those was fetched
ahead with the layer's accuracy a: sum over j >= 1 of P(j) (j - a). Tokens that choose one expert
only count with K = 1. Accuracy is measured on the training trace: the recall of the gate of the
layer before, where lookahead scores were recorded, else that of the token before; 0 in layer 0.
"""

from __future__ import annotations

from math import comb

import numpy as np

from specmd.policy import FloatArray, Training, World, best_quotas, policy


@policy("adap_moe", axis="allocate", source="AdapMoE, arXiv:2408.10284", needs=["training"])
class AdapMoE:
    """Minimises the loads expected of the layers."""

    @classmethod
    def create(cls) -> AdapMoE:
        """Build it."""
        return cls()

    def quotas(self, slots: int, world: World) -> list[int]:
        """Slots of each layer; they add up to `slots`."""
        assert world.training is not None
        single = ((world.training.expert_ids >= 0).sum(axis=2) == 1).mean(axis=0)
        one, more = (expected_misses(world.num_experts, chosen) for chosen in (1, world.top_k))
        ahead = accuracy(world.training, world)[:, None]
        single = single[:, None]
        costs = single * (one[0] - ahead * one[1]) + (1 - single) * (more[0] - ahead * more[1])
        return best_quotas(slots, world, costs)


def expected_misses(experts: int, chosen: int) -> FloatArray:
    """Return the mean of the missing and the chance that any is, (2, 0 to experts slots)."""
    found = np.zeros((2, experts + 1))
    for slots in range(experts + 1):
        for missing in range(1, chosen + 1):
            ways = comb(experts - slots, missing) * comb(slots, chosen - missing)
            found[:, slots] += np.array([missing, 1]) * (ways / comb(experts, chosen))
    return found


def accuracy(training: Training, world: World) -> FloatArray:
    """Return the share of a layer's choices that were foretold, (layers,)."""
    ids, scores = training.expert_ids, training.lookahead
    foretold = np.full(ids.shape, -1)
    if len(scores):
        best = np.argsort(-scores[:, :-1, 0], axis=2, kind="stable")
        foretold[:, 1:] = best[:, :, : world.top_k]
    else:
        foretold[1:, 1:] = ids[:-1, 1:]
    right = (ids[:, :, :, None] == foretold[:, :, None, :]).any(axis=3) & (ids >= 0)
    return right.sum(axis=(0, 2)) / np.maximum((ids >= 0).sum(axis=(0, 2)), 1)
