"""Sequential mode against libcachesim: equal hit counts on random and on real traces."""

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
    "belady": "Belady",
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
    last, upcoming = {}, np.full(len(keys), -1, np.int64)
    for i in range(len(keys) - 1, -1, -1):
        upcoming[i] = last.get(keys[i], -1)
        last[keys[i]] = i
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


def test_the_order_of_accesses_is_the_one_compared():
    ids = np.array([[[1, 0], [3, 2]], [[2, 3], [0, 1]], [[0, 2], [1, 3]]])
    trace = build_trace(ids, num_experts=4, step=[0, 0, 1])
    assert accesses(trace).tolist() == [1, 0, 2, 3, 7, 6, 4, 5, 0, 2, 5, 7]
