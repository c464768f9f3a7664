"""The core and its policies, step by step against a naive simulator written from the contract."""

import numpy as np
import pytest
from classical_rules import CLASSICAL
from reference import QUEUES, RANKS, Reference, core_log, random_steps

from specmd.core import state as residency

NAMES = [*RANKS, *QUEUES]
assert set(CLASSICAL) <= set(NAMES)
PLACES = [
    {},
    {"pools": True},
    {"prefetches": True},
    {"prefetches": True, "guard": True},
    {"prefetches": True, "guard": True, "pools": True},
    {"bypass": True},
    {"bypass": True, "prefetches": True, "guard": True},
]


def compare(name, seed, *, pools=False, prefetches=False, guard=False, bypass=False):
    trace, steps = random_steps(seed, prefetches=prefetches)
    rng = np.random.default_rng(seed + 1_000_000)
    layers, experts = trace.header.num_layers, trace.header.num_experts
    pools = layers if pools else 1
    capacity = rng.integers(0 if rng.random() < 0.1 else 1, layers * experts // pools + 1, pools)
    popularity = rng.integers(0, 5, layers * experts)
    expected, counts = Reference(
        steps,
        layers,
        experts,
        pools,
        capacity.tolist(),
        name,
        bypass=bypass,
        guard=guard,
        popularity=popularity,
    ).run()
    admission = residency.BYPASS if bypass else residency.FORCED
    found, total, _ = core_log(
        trace, steps, name, capacity, admission=admission, guard=guard, popularity=popularity
    )
    where = f"{name} seed {seed} capacity {capacity}"
    for i, (ours, theirs) in enumerate(zip(found, expected, strict=False)):
        assert ours == theirs, f"{where}: decision {i}: {found[i - 8 : i + 1]}, not {theirs}"
    assert len(found) == len(expected), where
    assert total == counts, where


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_core_decides_as_the_reference_does(name, place):
    for seed in range(8):
        compare(name, seed + 100 * PLACES.index(place), **place)
