"""The order structures against sorted lists, with held keys, in one pool and in several."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmd.core import hooks
from specmd.core.event import NEVER, NOBODY
from specmd.core.order import blocks, heap, ladder, lists, scan
from specmd.core.order.chance import below, fraction, mix
from specmd.core.specialise import specialise
from specmd.core.state import READY

KEYS, POOLS = 12, 3
SPAN = KEYS // POOLS


def world_of(keys, pools):
    """The sizes an order is built for."""
    return SimpleNamespace(num_keys=keys, pools=pools, pool_span=keys // pools)


def fake_core(held):
    """As much of a core as orders look at; every key is in the slot of its number."""
    return SimpleNamespace(
        hold=[int(key in held) for key in range(KEYS)],
        due=[-1] * KEYS,
        guard=[-1, 0],
        state=[READY] * KEYS,
        num_free=[0] * POOLS,
        pool=[key // SPAN for key in range(KEYS)],
        slot=list(range(KEYS)),
        key_in=list(range(KEYS)),
        first_slot=[pool * SPAN for pool in range(POOLS + 1)],
    )


held_keys = st.sets(st.integers(0, KEYS - 1), max_size=8)
changes = st.lists(
    st.tuples(st.integers(0, KEYS - 1), st.integers(0, 3), st.integers(0, 2), st.booleans()),
    max_size=60,
)


@given(changes, held_keys)
@settings(max_examples=150, deadline=None)
def test_a_heap_gives_the_least_of_what_may_leave(steps, held):
    ours = heap.make_heap(world_of(KEYS, POOLS))
    true = {}
    for key, rank, tie, remove in steps:
        if key not in true:
            heap.put(ours, key // SPAN, key, float(rank), tie)
            true[key] = (rank, tie, -key)
        elif remove:
            heap.drop(ours, key // SPAN, key)
            del true[key]
        else:
            heap.settle_rank(ours, key // SPAN, key, float(rank), tie)
            true[key] = (rank, tie, -key)
        for pool in range(POOLS):
            for core, barred in ((fake_core(held), held), (fake_core(set()), set())):
                able = [k for k in true if k // SPAN == pool and k not in barred]
                expected = min(able, key=true.get, default=NOBODY)
                assert heap.least_evictable(ours, pool, core) == expected
            assert ours.count[pool] == sum(k // SPAN == pool for k in true)


@given(changes, held_keys)
@settings(max_examples=150, deadline=None)
def test_a_heap_comes_out_sorted(steps, held):
    ours, true = heap.make_heap(world_of(KEYS, 1)), {}
    for key, rank, tie, _ in steps:
        if key in true:
            heap.drop(ours, 0, key)
        heap.put(ours, 0, key, float(rank), tie)
        true[key] = (rank, tie, -key)
    found = []
    while true:
        key = int(heap.least_evictable(ours, 0, fake_core(set())))
        found.append(true.pop(key))
        heap.drop(ours, 0, key)
    assert found == sorted(found)
    assert heap.least_evictable(ours, 0, fake_core(set())) == NOBODY


@given(
    st.lists(
        st.tuples(
            st.integers(0, 79),
            st.one_of(st.integers(0, 9), st.sampled_from([NEVER, blocks.LARGEST, 1 << 50])),
            st.booleans(),
        ),
        max_size=120,
    ),
    st.sets(st.integers(0, 79), max_size=60),
    st.sampled_from([1, 2]),
)
@settings(max_examples=150, deadline=None)
def test_blocks_give_the_largest_of_what_may_leave(steps, held, pools):
    keys, span = 80, 80 // pools
    core = SimpleNamespace(
        hold=[int(key in held) for key in range(keys)], due=[-1] * keys, guard=[-1, 0]
    )
    ours, true = blocks.make_blocks(world_of(keys, pools)), {}
    for key, value, remove in steps:
        if key not in true:
            blocks.enter(ours, key // span, key, value)
        elif remove:
            blocks.leave(ours, key // span, key)
            del true[key]
            continue
        else:
            blocks.set_value(ours, key, value)
        true[key] = (min(value, blocks.LARGEST), key)
    for pool in range(pools):
        able = [k for k in true if k // span == pool and k not in held]
        assert blocks.largest_evictable(ours, pool, core) == max(able, key=true.get, default=NOBODY)
        inside = sorted(v for k, v in true.items() if k // span == pool)
        places = ours.value[pool * len(ours.value) // pools : (pool + 1) * len(ours.value) // pools]
        kept = sorted((v // blocks.KEY_SPACE, v % blocks.KEY_SPACE) for v in places if v >= 0)
        assert [(int(a), int(b)) for a, b in kept] == inside


def test_blocks_take_the_lowest_free_place():
    ours = blocks.make_blocks(world_of(80, 1))
    for key in (70, 3, 50):
        blocks.enter(ours, 0, key, key)
    assert ours.place[[70, 3, 50]].tolist() == [0, 1, 2]
    blocks.leave(ours, 0, 3)
    blocks.enter(ours, 0, 9, 1)
    assert ours.place[9] == 1
    assert ours.high[0] == 1
    with pytest.raises(ValueError, match="at most"):
        blocks.make_blocks(world_of(blocks.KEY_SPACE + 1, 1))


def contents(ours, which):
    """Keys from front to back, and the same from back to front."""
    forth, back = [], []
    end = node = ours.size + which
    while (node := int(ours.next[node])) != end:
        forth.append(node)
    node = end
    while (node := int(ours.prev[node])) != end:
        back.append(node)
    assert forth == back[::-1]
    return forth


@given(
    st.lists(st.tuples(st.sampled_from("fbdr"), st.integers(0, KEYS - 1), st.integers(0, 1))),
    held_keys,
)
@settings(max_examples=150, deadline=None)
def test_lists_are_lists(steps, held):
    ours, true = lists.make_lists(KEYS, 2), [[], []]
    for what, key, which in steps:
        if what == "d":
            lists.splice_front(ours, which, 1 - which)
            true[1 - which], true[which] = true[which] + true[1 - which], []
            continue
        for held_in in true:
            if key in held_in:
                held_in.remove(key)
                lists.unlink(ours, key)
        if what == "f":
            lists.push_front(ours, which, key)
            true[which].insert(0, key)
        elif what == "b":
            lists.push_back(ours, which, key)
            true[which].append(key)
    for which in (0, 1):
        assert contents(ours, which) == true[which]
        end = ours.size + which
        assert lists.front(ours, which) == (true[which][0] if true[which] else end)
        assert lists.back(ours, which) == (true[which][-1] if true[which] else end)
        able = [key for key in true[which] if key not in held]
        found = lists.last_evictable(ours, which, fake_core(held))
        assert found == (able[-1] if able else NOBODY)


@given(changes, st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_ladder_is_in_order_of_count_stamp_and_key(steps, stamped):
    ours, true, clock = ladder.make_ladder(KEYS, POOLS), {}, 1
    for key, height, later, remove in steps:
        clock += later == 0
        stamp = clock if stamped else 0
        if key not in true:
            ladder.step_on(ours, key // SPAN, key, height, stamp)
            true[key] = (height, stamp, -key)
        elif remove:
            ladder.step_off(ours, key)
            del true[key]
        else:
            ladder.climb(ours, key, stamp)
            true[key] = (true[key][0] + 1, stamp, -key)
        for pool in range(POOLS):
            end, found = KEYS + pool, []
            key = lists.back(ours.lists, pool)
            while key != end:
                found.append(int(key))
                key = ours.lists.prev[key]
            assert found == sorted((k for k in true if k // SPAN == pool), key=true.get)
    assert KEYS - ours.num_free[0] == len({(key // SPAN, true[key][0]) for key in true})


@given(st.lists(st.sets(st.integers(0, KEYS - 1)), max_size=12))
@settings(max_examples=100, deadline=None)
def test_a_list_by_stamp_has_the_largest_key_of_the_smallest_stamp_at_its_back(events):
    ours, stamp = lists.make_lists(KEYS, 1), [0] * KEYS
    inside = set()
    for now, keys in enumerate(events, 1):
        # Hits, then misses, each by ascending key, as the core does.
        for key in [*sorted(keys & inside), *sorted(keys - inside)]:
            if key in inside:
                lists.unlink(ours, key)
            lists.place_ordered(ours, 0, key, stamp, now)
            inside.add(key)
        assert contents(ours, 0) == sorted(inside, key=lambda key: (-stamp[key], key))


class Table:
    """A policy that only ranks."""

    def __init__(self, ranks):
        self.ranks = ranks

    def rank(self, key, event):
        return self.ranks[key]


@given(
    st.lists(st.integers(0, 3), min_size=KEYS, max_size=KEYS),
    held_keys,
    held_keys,
    st.integers(0, POOLS - 1),
)
@settings(max_examples=100, deadline=None)
def test_the_scan_gives_the_smallest_rank_and_of_equals_the_largest_key(ranks, held, gone, pool):
    core = fake_core(held)
    for key in gone:
        core.state[key] = 0
        core.key_in[key] = NOBODY
    ask = specialise(scan.least_ranked, {hooks.rank: Table.rank}, compiled=False)
    inside = range(pool * SPAN, (pool + 1) * SPAN)
    able = [key for key in inside if key not in held | gone]
    expected = min(able, key=lambda key: (ranks[key], -key), default=NOBODY)
    assert ask(Table(ranks), KEYS, pool, core, None) == expected


@given(held_keys, held_keys, held_keys)
@settings(max_examples=100, deadline=None)
def test_where_an_event_narrows_the_scan_sees_its_keys_without_a_slot(held, gone, slotless):
    core = fake_core(held)
    for key in gone | slotless:
        core.key_in[key] = NOBODY
        core.slot[key] = NOBODY
        core.state[key] = READY if key in slotless else 0
    event = SimpleNamespace(keys=sorted(slotless), start=0, stop=len(slotless))
    ask = specialise(scan.least_ranked, {hooks.rank: Table.rank}, compiled=False)
    for pool in range(POOLS):
        inside = range(pool * SPAN, (pool + 1) * SPAN)
        for incoming, hidden in ((NOBODY, set()), (KEYS, slotless)):
            able = [key for key in inside if key not in held | (gone - slotless) | hidden]
            found = ask(Table([0] * KEYS), incoming, pool, core, event)
            assert found == max(able, default=NOBODY)


# --- chance


def draws(count):
    """A sum over many draws: one number that every engine must agree on."""
    total = 0.0
    for i in range(count):
        a = i * 2654435761
        total += below(1000, a, i) + fraction(i, a) + mix(a, i * i) % 1024
    return total


def test_chance_is_the_same_compiled_and_interpreted():
    assert specialise(draws, {})(2000) == draws(2000)


def test_chance_is_fixed_for_ever():
    pairs = ((0, 0), (1, 0), (0, 1), (1 << 40, 3))
    assert [mix(*pair) for pair in pairs] == [3038032678, 1045055575, 2786991958, 1400483176]


def test_chance_is_even():
    counts = np.bincount([below(10, 7, i) for i in range(20_000)], minlength=10)
    assert len(counts) == 10
    assert abs(counts - 2000).max() < 250
    shares = [fraction(3, i) for i in range(5_000)]
    assert 0 <= min(shares) <= max(shares) < 1
    assert np.mean(shares) == pytest.approx(0.5, abs=0.02)


def test_chance_depends_on_every_word():
    high = 1 << 32
    pairs = ((5, 9), (6, 9), (5, 10), (5 + high, 9), (5, 9 + high), (9, 5))
    assert len({mix(*pair) for pair in pairs}) == len(pairs)
