"""Demand goes first: ahead of what is looked ahead for, and behind one chunk of it at most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from live_models import build, generate, offload, prompt

from specmd.core.state import CAPACITY_MISSES, COMPULSORY_MISSES
from specmd.live.layer import Engine
from specmd.live.links.host import HostLink
from specmd.live.service import Residence
from specmd.live.slots import Slots
from specmd.live.stores.checkpoint import CheckpointStore
from specmd.live.transfer import Transfer
from specmd.live.transfers import Mover
from specmd.models.files import CheckpointFiles
from specmd.models.layout import read_layouts
from specmd.models.moe import find_moe


@pytest.mark.parametrize("prefill", ["waves", "bypass", "double_buffer"])
def test_what_is_missing_is_on_its_way_before_the_scores_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, prefill: str
) -> None:
    """In an event wider than the cache as many as it holds: which key is last there is open."""
    queued: list[int] = []
    seen: list[tuple[int, int]] = []
    look_ahead, fetch = Engine._look_ahead, Residence._fetch

    def noting_fetch(self: Residence, key: int, slot: int | None, **more: Any) -> Transfer:
        queued.append(key)
        return fetch(self, key, slot, **more)

    def noting_look_ahead(self: Engine, *args: Any) -> None:
        misses = self._decisions.kernel.counters[:, :, COMPULSORY_MISSES : CAPACITY_MISSES + 1]
        seen.append((len(queued), int(misses.sum())))
        look_ahead(self, *args)

    monkeypatch.setattr(Residence, "_fetch", noting_fetch)
    monkeypatch.setattr(Engine, "_look_ahead", noting_look_ahead)
    model = build("olmoe")
    with offload(
        model, capacity=6, prefetch="next_gate", prefill=prefill, interpreted=True
    ) as cache:
        generate(model, 6, **prompt(1, 12))
    assert len(seen) == 18
    late = [missed - on_its_way for on_its_way, missed in seen]
    most = 2 if prefill == "waves" else 0  # of a layer's 8 keys, 6 have a slot at once
    assert max(late[:3]) == most
    assert late[3:] == [0] * 15
    assert len(queued) == cache.report().misses


def test_a_checkpoint_is_read_a_chunk_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A demand that comes after a prefetch's first chunk waits for no more of it."""
    model = build("mixtral")
    model.save_pretrained(tmp_path)
    moe = find_moe(model)
    layouts = read_layouts(moe)
    store = CheckpointStore(tmp_path, moe, layouts)
    slots, chunk = Slots(layouts, [2], 1, torch.device("cpu"), canary=True), 1000
    read: list[int] = []
    raw = CheckpointFiles.raw

    class Noting(np.ndarray):
        def __getitem__(self, part: Any) -> Any:
            found = super().__getitem__(part)
            read.append(found.nbytes)
            return found

    monkeypatch.setattr(CheckpointFiles, "raw", lambda *args: raw(*args).view(Noting))
    mover = Mover(HostLink(slots), store, slots, chunk_bytes=chunk)
    ahead = Transfer(3, slots.assign(0, 3), demanded=False, prefetched=True)
    wanted = Transfer(9, slots.assign(1, 9), demanded=True)
    with mover.lock:
        mover.queue(ahead)
    mover.step()
    assert 0 < sum(read) <= chunk
    with mover.lock:
        mover.queue(wanted)
    while not wanted.done:
        read.clear()
        mover.step()
        assert sum(read) <= chunk
        assert ahead.moved_bytes == chunk
    while mover.step():
        pass
    monkeypatch.undo()
    for key, slot in ((3, 0), (9, 1)):
        for name, tensor in slots.views[key // 8][slot].items():
            own = dict(moe.layers[key // 8].experts.named_parameters())[name][key % 8]
            assert tensor.equal(own), name
