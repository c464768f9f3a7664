"""How slots are divided, and what a capacity comes to where experts differ in size."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specmd.runs.options import RunConfig
from specmd.runs.pools import Pools, divide, fit, parse_capacity
from specmd.runs.regime import size_classes
from specmd.trace import TraceHeader

SIZES = st.lists(st.sampled_from([100, 130, 210]), min_size=1, max_size=9)


def test_one_size_is_one_pool_and_every_layer_may_be_one():
    assert divide(7, 3, (10, 10, 10)) == Pools((7,), (0, 0, 0))
    assert divide(7, 3) == Pools((7,), (0, 0, 0))
    assert divide(7, 3, (10, 20, 10), scope="layer") == Pools((3, 2, 2), (0, 1, 2))


def test_sizes_share_the_slots_in_proportion_to_their_experts():
    # 4 layers of the small size, 2 of the large: two thirds of the slots, and one third.
    sizes = (20, 10, 10, 20, 10, 10)
    assert divide(9, 6, sizes) == Pools((6, 3), (1, 0, 0, 1, 0, 0))
    assert divide(10, 6, sizes).slots == (7, 3)
    assert divide(11, 6, sizes).slots == (7, 4)
    assert divide(10, 6, sizes).bytes(sizes) == 7 * 10 + 3 * 20


@given(SIZES, st.integers(1, 8), st.integers(0, 100))
def test_every_slot_is_given_and_a_full_cache_holds_everything(sizes, experts, share):
    layers = len(sizes)
    slots = layers * experts * share // 100
    pools = divide(slots, layers, sizes)
    assert sum(pools.slots) == slots
    assert len(pools.slots) == len(set(sizes))
    for pool, count in enumerate(pools.slots):
        assert 0 <= count <= experts * pools.of_layer.count(pool)
    for a, b in pairwise(sorted(zip(sizes, pools.of_layer, strict=True))):
        assert (a[0] == b[0]) == (a[1] == b[1])


@given(SIZES, st.integers(1, 8), st.integers(0, 20_000), st.sampled_from(["global", "layer"]))
def test_bytes_are_filled_and_never_exceeded(sizes, experts, n_bytes, scope):
    layers = len(sizes)
    slots = fit(n_bytes, sizes, experts, scope=scope)
    if slots <= layers * experts:
        assert divide(slots, layers, sizes, scope=scope).bytes(sizes) <= n_bytes
    # What is left over is less than a slot of every size: nothing more would fit.
    if slots < layers * experts:
        taken = divide(slots, layers, sizes, scope=scope).bytes(sizes)
        assert n_bytes - taken < sum(sorted(set(sizes))) + max(sizes)


def test_a_capacity_in_bytes_counts_true_bytes():
    sizes = (100, 100, 200)
    assert parse_capacity("400", 3, 200, None) == 400
    assert parse_capacity("400B", 3, 2, sizes) == 3  # two of 100, one of 200
    assert parse_capacity("100%", 3, 2, sizes) == 6
    header = TraceHeader(
        num_layers=3, num_experts=2, top_k=1, expert_bytes=133, expert_bytes_by_layer=sizes
    )
    config = RunConfig(capacity="400B", capacity_slots=3)
    classes = size_classes(header, config)
    assert [(each.bytes, each.experts, each.slots) for each in classes] == [
        (100, 4, 2),
        (200, 2, 1),
    ]


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_sizes_that_are_alike_change_nothing(scope):
    for slots in range(25):
        assert divide(slots, 4, (7,) * 4, scope=scope) == divide(slots, 4, scope=scope)
    assert fit(99, (7,) * 4, 6, scope=scope) == 14
