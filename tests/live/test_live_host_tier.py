"""A disk behind the host: right results, the simulator's decisions, and faults in one line."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from live_models import build, build_mixed, generate, offload, prompt

from specmd.core import state as residency
from specmd.core.hooks import stage
from specmd.core.specialise import specialise
from specmd.core.tier import bind_tier, make_tier
from specmd.errors import SpecmdError
from specmd.live import cache as caches
from specmd.live.links.host import HostLink
from specmd.live.links.link import COPY
from specmd.live.stores import disk
from specmd.live.stores.disk import Extent, UncachedFiles
from specmd.live.tiered import TieredMover
from specmd.models.meta import load_without_experts
from specmd.policy.registry import choose
from specmd.runs.resolve import grid
from specmd.simulation.replay import replay

OPTIONS: list[dict[str, Any]] = [
    {},
    {"capacity": 2, "host_capacity": 4},
    {"capacity": 3, "host_capacity": 1},
    {"prefetch": "next_gate:depth=2", "schedule": "priority"},
    {"prefetch": "prev_token:depth=2", "schedule": "cancel", "host_capacity": 3},
    {"admission": "bypass", "scope": "layer", "prefetch": "random:width=3"},
    {"host_evict": "least_stale", "evict": "lfu", "miss": "block"},
    {"host_evict": "s3fifo", "host_capacity": "100%", "capacity": 1},
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A checkpoint, and what its model says with every expert in place."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model = build("olmoe")
    model.save_pretrained(folder)
    with offload(model, capacity="100%", interpreted=True):
        return folder, generate(model), generate(model, 4, **prompt(3, 9))


def live(folder: Path, **options: Any) -> tuple[Any, Any]:
    model = load_without_experts(folder)
    given = {"capacity": 5, "host_capacity": 10, "timeout_s": 20.0, "interpreted": True} | options
    return model, offload(model, checkpoint=folder, canary=True, log_routing=True, **given)


def same(found: Any, expected: Any) -> bool:
    return all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def simulated(cache: Any, options: dict[str, Any]) -> Any:
    asked = {"capacity": 5, "host_capacity": 10} | options
    (config,) = grid(cache.trace, **asked)
    return replay(cache.trace, config, interpreted=True)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_device_and_host_decide_as_a_simulation_of_the_routing(
    saved: Any, options: dict[str, Any]
) -> None:
    folder, expected, wide = saved
    model, entered = live(folder, deterministic=True, **options)
    with entered as cache:
        assert same(generate(model), expected)
        assert same(generate(model, 4, **prompt(3, 9)), wide)
        outcome = simulated(cache, options)
        assert cache.decision_digest == outcome.decision_digest
        assert cache.host_digest == outcome.host_digest
        assert (cache.host_counters == outcome.host_counters).all()
        total = cache.host_counters.sum(axis=(0, 1))
    assert total[residency.ACCESSES] > 0


def test_compiled_decisions_are_those_of_plain_python(saved: Any) -> None:
    folder, expected, _ = saved
    model, entered = live(folder, deterministic=True, interpreted=False)
    with entered as cache:
        assert same(generate(model), expected)
        assert cache.host_digest == simulated(cache, {}).host_digest
        cache.restart()
        assert not cache.host_counters.any()
        assert same(generate(model), expected)
        assert cache.host_digest == simulated(cache, {}).host_digest


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_whatever_the_timing_the_host_decides_by_the_order_of_transfers(
    saved: Any, options: dict[str, Any]
) -> None:
    folder, expected, wide = saved
    model, entered = live(folder, **options)
    asked: list[tuple[int, int, int]] = []
    with entered as cache:
        tier = cache._tier
        ask = tier.ask
        tier.ask = lambda *question: (asked.append(question), ask(*question))[1]
        assert same(generate(model), expected)
        assert same(generate(model, 4, **prompt(3, 9)), wide)
        cache._mover.drain()
        digest, read_bytes = cache.host_digest, cache.report().read_bytes
        counters = cache.host_counters
        decided = cache.final_counters.sum(axis=(0, 1))
        size = cache._layouts.of(0).expert_bytes
    evict = choose("evict", options.get("host_evict", "lru"))
    alone = make_tier(tier.world, evict)
    look_up = specialise(stage_of, bind_tier(evict), compiled=False)
    for question in asked:
        look_up(alone, *question)
    assert "".join(f"{int(lane):08x}" for lane in alone.core.digest) == digest
    misses = [residency.COMPULSORY_MISSES, residency.COLLISION_MISSES, residency.CAPACITY_MISSES]
    moved = decided[[*misses, residency.PREFETCH_ISSUED]].sum()
    assert len(asked) == moved - decided[residency.PREFETCH_CANCELLED]
    assert read_bytes >= counters.sum(axis=(0, 1))[misses].sum() * size  # some more than once


def stage_of(tier: Any, key: int, step: int, phase: int) -> bool:
    """Ask, by the name that is bound."""
    return stage(tier, key, step, phase)


class Unsteady(TieredMover):
    """No threads: reads and copies move on at random, between kernels and while waited for."""

    chance = random.Random(0)

    def start(self) -> None:
        pass

    def after_use(self, slot: int) -> None:
        super().after_use(slot)
        for _ in range(self.chance.randrange(4)):
            self.step()

    def step(self) -> bool:
        ways = [self._read_one, super(TieredMover, self).step]
        self.chance.shuffle(ways)
        return ways[0]() or ways[1]()

    def _read_one(self) -> bool:
        with self.lock:
            transfer = self._take_up()
        if transfer is not None:
            stop = self._read(transfer)
            with self.lock:
                self._has_read(transfer, stop)
        return transfer is not None


@pytest.mark.parametrize("seed", range(24))
def test_right_in_every_order_of_reads_copies_and_kernels(
    saved: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, expected, wide = saved
    monkeypatch.setattr(caches, "TieredMover", Unsteady)
    monkeypatch.setattr(Unsteady, "chance", random.Random(seed))
    options = OPTIONS[seed % len(OPTIONS)] | {"host_capacity": 1 + seed % 5}
    model, entered = live(folder, chunk_bytes=2048, **options)
    with entered:
        assert same(generate(model), expected), f"seed {seed}"
        assert same(generate(model, 4, **prompt(3, 9)), wide), f"seed {seed}"


class LateLink(HostLink):
    """Copies are done when somebody waits for them, as late as a device may."""

    def __init__(self, slots: Any) -> None:
        super().__init__(slots)
        self._lock, self._asked, self._done = threading.Lock(), 0, 0
        self._late: list[Any] = []

    def copy(self, *what: Any) -> None:
        with self._lock:
            self._late.append(what)
            self._asked += 1

    def record(self, stream: int) -> int:
        return self._asked if stream == COPY else 0

    def reached(self, mark: int) -> bool:
        return mark <= self._done

    def order(self, stream: int, mark: int) -> None:
        with self._lock:
            while self._done < mark:
                super().copy(*self._late.pop(0))
                self._done += 1

    def synchronise(self, mark: int, timeout_s: float) -> None:
        self.order(COPY, mark)


@pytest.mark.parametrize("waits", [True, False])
def test_a_host_slot_is_filled_again_only_when_the_device_has_read_it(
    saved: Any, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, expected, wide = saved
    monkeypatch.setattr(caches, "HostLink", LateLink)
    monkeypatch.setattr(caches, "TieredMover", Unsteady)
    if not waits:
        monkeypatch.setattr(Unsteady, "_wait_for_copies", lambda *_: None)
    right = []
    for seed in range(3):
        monkeypatch.setattr(Unsteady, "chance", random.Random(seed))
        model, entered = live(folder, capacity=8, host_capacity=1 + seed)
        with entered:
            right += [same(generate(model), expected)]
            right += [same(generate(model, 4, **prompt(3, 9)), wide)]
    assert all(right) == waits


def test_what_is_read_overlaps_what_is_copied(saved: Any) -> None:
    folder, expected, _ = saved
    model, entered = live(folder, prefetch="next_gate:depth=1", capacity=12)
    with entered as cache:
        assert same(generate(model), expected)
        report = cache.report()
        names = {thread.name for thread in cache._mover._threads()}
    assert names == {"specmd-copy", "specmd-read"}
    assert report.disk in ("O_DIRECT", "fadvise")
    assert report.disk_busy_s > 0
    assert report.store_bytes == (10 + 2) * cache._layouts.largest_bytes


# --- faults


def damaged(saved: Any, folder: Path) -> Path:
    """A checkpoint of one's own, to be damaged."""
    build("olmoe").save_pretrained(folder)
    return folder / "model.safetensors"


def test_a_file_that_is_cut_while_in_use_is_one_line(saved: Any, tmp_path: Path) -> None:
    file = damaged(saved, tmp_path)
    model, entered = live(tmp_path)
    with entered as cache:
        generate(model, 1)
        os.truncate(file, file.stat().st_size // 3)
        with pytest.raises(SpecmdError, match=r"model\.safetensors: ends at byte") as caught:
            generate(model, 30)
        assert "\n" not in str(caught.value)
        with pytest.raises(SpecmdError, match="ends at byte"):
            generate(model, 1)
        assert cache.report().read_bytes > 0


def test_a_file_that_is_gone_is_one_line_or_read_to_its_end(saved: Any, tmp_path: Path) -> None:
    _, expected, _ = saved
    file = damaged(saved, tmp_path)
    model, entered = live(tmp_path)
    with entered:
        file.unlink()
        assert same(generate(model), expected)
    with pytest.raises(SpecmdError, match=r"no \.safetensors file"):
        live(tmp_path)[1].__enter__()


def test_a_file_that_vanishes_before_it_is_opened(tmp_path: Path) -> None:
    with pytest.raises(SpecmdError, match=r"gone: cannot be read: No such file"):
        UncachedFiles([tmp_path / "gone"])


def test_what_cannot_be(saved: Any) -> None:
    folder, _, _ = saved
    for options, why in (
        ({"prefill": "bypass"}, "has no host_capacity"),
        ({"host_capacity": 0}, "less than one slot"),
        ({"host_evict": "belady"}, "told nothing but what is asked for"),
        ({"host_evict": "no_such"}, "no_such"),
    ):
        with pytest.raises(SpecmdError, match=why):
            live(folder, **options)
    with pytest.raises(SpecmdError, match="from a disk"):
        offload(build("olmoe"), capacity=5, host_capacity=5)


# --- the disk


@pytest.mark.parametrize("direct", [True, False])
def test_any_part_of_a_file_can_be_read(
    tmp_path: Path, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not direct:
        monkeypatch.delattr(os, "O_DIRECT", raising=False)
    chance = np.random.default_rng(3)
    for size in (1, 4095, 4096, 4097, 70_001):
        content = chance.integers(0, 256, size, dtype=np.uint8)
        file = tmp_path / f"{size}"
        file.write_bytes(content.tobytes())
        files = UncachedFiles([file])
        assert direct or files.way == "fadvise"
        for _ in range(20):
            start = int(chance.integers(0, size))
            stop = int(chance.integers(start, size + 1))
            out = np.zeros(stop - start, np.uint8)
            files.read(file, start, out)
            assert (out == content[start:stop]).all(), f"{size}: {start}:{stop}"
        with pytest.raises(SpecmdError, match=f"ends at byte {size}"):
            files.read(file, size - 1, np.zeros(2, np.uint8))
        files.close()
        with pytest.raises(SpecmdError, match="is closed"):
            files.read(file, 0, np.zeros(1, np.uint8))


def test_a_file_system_without_direct_reads_is_read_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Path, flags: int) -> int:
        if flags & getattr(os, "O_DIRECT", 0):
            raise OSError(22, "Invalid argument")
        return opened(file, flags)

    opened = os.open
    file = tmp_path / "file"
    file.write_bytes(b"abcdef")
    monkeypatch.setattr(disk.os, "open", refuse)
    files = UncachedFiles([file])
    out = np.zeros(3, np.uint8)
    files.read(file, 2, out)
    assert (files.way, out.tobytes()) == ("fadvise", b"cde")
    files.close()


def test_extents_are_the_bytes_of_the_blob(saved: Any) -> None:
    folder, _, _ = saved
    _, entered = live(folder)
    with entered as cache:
        store = cache._store
        for key in range(store.num_keys):
            extents: list[Extent] = store._behind.extents(key)
            assert sum(each.size for each in extents) == cache._layouts.of(key).expert_bytes
            blob = store.read(key, 0, cache._layouts.of(key).blob_bytes).clone()
            plain = store._behind.read(key, 0, cache._layouts.of(key).blob_bytes)
            for each in extents:
                part = slice(each.at, each.at + each.size)
                assert torch.equal(blob[part], plain[part])


# --- sizes


@pytest.mark.parametrize("options", [{}, {"host_capacity": 3, "capacity": 3}], ids=str)
def test_experts_of_several_sizes_have_host_slots_of_their_sizes(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    model = build_mixed()
    model.save_pretrained(tmp_path)
    asked = {"capacity": 12, "host_capacity": 15, **options}
    with offload(model, capacity="100%", interpreted=True):
        expected = generate(model)
    more = {"interpreted": True, "deterministic": True, "log_routing": True, "canary": True}
    with offload(model, checkpoint=tmp_path, **asked, **more) as cache:
        assert same(generate(model), expected)
        outcome = simulated(cache, asked)
        assert cache.host_digest == outcome.host_digest
        counters, report = cache.host_counters, cache.report()
        sizes = np.array([layout.expert_bytes for layout in cache._layouts.of_layer])
        slots = cache._tier.world.capacity
    misses = [residency.COMPULSORY_MISSES, residency.COLLISION_MISSES, residency.CAPACITY_MISSES]
    read = counters[..., misses].sum(axis=(0, 2)) @ sizes
    assert report.read_bytes == read or asked["host_capacity"] < 15
    assert report.read_bytes >= read
    assert len(slots) == len(set(sizes))
