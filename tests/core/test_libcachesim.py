"""Sequential mode against libcachesim: equal hit counts on random and on real traces.

Where it has the algorithm and its counts are not equal, one rule of its own explains them, or:
LIRS demotes an LIR key at every hit in the queue, too, and counts LIR keys among the 2 * C of its
stack; LFU-DA adds the age at every hit to what was added before; W-TinyLFU refuses caches that
give its window or a quarter of its main part no slot; LeCaR and Hyperbolic draw their own numbers.
"""

from pathlib import Path

import numpy as np
import pytest

from specmd.core import state as residency
from specmd.runs.options import RunConfig
from specmd.simulation.replay import replay
from specmd.trace import build_trace, load, slice_tokens, synthetic

libcachesim = pytest.importorskip("libcachesim")

SHIPPED = Path(__file__).parents[2] / "traces"
RECORD = np.dtype([("time", "<u4"), ("key", "<u8"), ("bytes", "<u4"), ("next", "<i8")])
NAMES = {
    "lru": "LRU", "fifo": "FIFO", "sieve": "Sieve", "arc": "ARC", "lfu:resident=true": "LFU",
    "belady": "Belady", "clock": "Clock",
}  # fmt: skip


def accesses(trace):
    """Keys in the order of sequential mode: step, layer, token, rank."""
    keys = trace.expert_ids.astype(np.int64)
    keys = keys + (np.arange(keys.shape[1]) * trace.header.num_experts)[:, None]
    order = np.asarray(trace.step)[:, None] * keys.shape[1] + np.arange(keys.shape[1])
    rows = keys.reshape(-1, keys.shape[2])
    return rows[np.argsort(order.reshape(-1), kind="stable")].reshape(-1)


def theirs(keys, name, slots, path):
    """Hits of libcachesim, over its own reader of the binary form with next uses."""
    listed, last, upcoming = keys.tolist(), {}, [-1] * len(keys)
    for i in range(len(listed) - 1, -1, -1):
        upcoming[i] = last.get(listed[i], -1)
        last[listed[i]] = i
    records = np.zeros(len(keys), RECORD)
    records["time"], records["key"] = np.arange(len(keys)), keys + 1
    records["bytes"], records["next"] = 1, upcoming
    records.tofile(path)
    reader = libcachesim.TraceReader(str(path), libcachesim.TraceType.ORACLE_GENERAL_TRACE)
    cache = getattr(libcachesim, name)(slots)
    miss_ratio, _ = cache.process_trace(reader)
    return round(len(keys) * (1 - miss_ratio))


def ours(trace, name, slots):
    chosen = RunConfig(evict=name, capacity=str(slots), capacity_slots=slots, sequential=True)
    return int(replay(trace, chosen, interpreted=True).counters[..., residency.REUSE_HITS].sum())


def compare(trace, name, slots, path):
    found, expected = ours(trace, name, slots), theirs(accesses(trace), NAMES[name], slots, path)
    assert found == expected, f"{name}, {slots} slots"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(6))
def test_hits_agree_on_random_traces(name, seed, tmp_path):
    rng = np.random.default_rng(seed)
    layers, experts = int(rng.integers(1, 5)), int(rng.integers(2, 12))
    trace = synthetic(
        num_layers=layers,
        num_experts=experts,
        top_k=int(rng.integers(1, min(4, experts) + 1)),
        num_requests=4,
        prompt_length=int(rng.integers(0, 6)),
        decode_length=40,
        batch=int(rng.integers(1, 4)),
        seed=seed,
    )
    for slots in {1, 2, layers * experts // 3 + 1, layers * experts}:
        compare(trace, name, slots, tmp_path / "oracle.bin")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("file", ["tiny-prose-b1.npz", "tiny-mixed-b8.npz"])
def test_hits_agree_on_shipped_traces(name, file, tmp_path):
    trace = slice_tokens(load(SHIPPED / file), 0, 400)
    for slots in (6, 26, 77):
        compare(trace, name, slots, tmp_path / "oracle.bin")


@pytest.mark.parametrize("seed", range(4))
def test_s3fifo_that_warms_up_as_libcachesim_does_agrees(seed, tmp_path):
    # Where a tenth of the slots is three or more, and rounded alike: below, its small queue, of
    # one slot, never admits a key.
    trace = synthetic(
        num_layers=4, num_experts=16, top_k=2, num_requests=4, prompt_length=3, decode_length=60,
        seed=seed,
    )  # fmt: skip
    keys, file = accesses(trace), tmp_path / "oracle.bin"
    for slots in (30, 33, 41, 52):
        assert ours(trace, "s3fifo:warm=true", slots) == theirs(keys, "S3FIFO", slots, file)
    assert ours(trace, "s3fifo", 41) != theirs(keys, "S3FIFO", 41, file)


@pytest.mark.parametrize("seed", range(3))
def test_two_q_agrees_where_a_quarter_of_the_slots_is_one_at_least(seed, tmp_path):
    trace = synthetic(
        num_layers=4, num_experts=16, top_k=2, num_requests=4, prompt_length=3, decode_length=40,
        seed=seed,
    )  # fmt: skip
    keys, file = accesses(trace), tmp_path / "oracle.bin"
    for slots in (4, 9, 26, 41, 52):
        assert ours(trace, "two_q", slots) == theirs(keys, "TwoQ", slots, file)
    assert theirs(keys, "TwoQ", 3, file) == 0  # its newcomers have no slot there


def least_first(keys, slots, rank, *, enters_first=False, forgets=False):
    """Hits of a cache whose least key by `rank` of uses, age of the cache and times leaves."""
    uses, value, times, age, hits = {}, {}, {}, 0, 0
    for now, key in enumerate(keys.tolist()):
        hits += key in value
        full = key not in value and len(value) == slots
        uses[key] = uses[key] + 1 if key in value else 1
        times.setdefault(key, []).append(now)
        entering = rank(uses[key], age, times[key])
        if full and enters_first:
            value[key] = entering
        if full:
            gone = min(value, key=value.get)
            age = value.pop(gone)[0]
            if forgets:
                del times[gone]
        if not (full and enters_first):
            value[key] = rank(uses[key], age, times.setdefault(key, [now]))
    return hits


@pytest.mark.parametrize("seed", range(3))
def test_one_rule_explains_gdsf_and_lru_2(seed, tmp_path):
    trace = synthetic(
        num_layers=4, num_experts=16, top_k=2, num_requests=4, prompt_length=3, decode_length=40,
        seed=seed,
    )  # fmt: skip
    keys, file = accesses(trace), tmp_path / "oracle.bin"

    def gdsf(uses, age, times):
        return age + uses, times[-1]

    def lru_2(uses, age, times):
        return (times[-2], times[-1]) if len(times) > 1 else (-1, times[-1])

    for slots in (9, 26, 41):
        # A key that enters libcachesim's is itself among those of which the least leaves.
        assert ours(trace, "gdsf:cost=even", slots) == least_first(keys, slots, gdsf)
        newcomer = least_first(keys, slots, gdsf, enters_first=True)
        assert theirs(keys, "GDSF", slots, file) == newcomer
        # Its LRU-2 forgets a key with its eviction; ours remembers 2 * C of those that left.
        assert theirs(keys, "LRUK", slots, file) == least_first(keys, slots, lru_2, forgets=True)
        if 3 * slots >= 64:
            assert ours(trace, "lru_k", slots) == least_first(keys, slots, lru_2)


def test_the_order_of_accesses_is_the_one_compared():
    ids = np.array([[[1, 0], [3, 2]], [[2, 3], [0, 1]], [[0, 2], [1, 3]]])
    trace = build_trace(ids, num_experts=4, step=[0, 0, 1])
    assert accesses(trace).tolist() == [1, 0, 2, 3, 7, 6, 4, 5, 0, 2, 5, 7]
