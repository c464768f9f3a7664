"""Policies that change what is executed, live: a simulation of the log decides the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from live_models import FAMILIES, build, generate, offload, prompt, tiny

from specmd import simulate
from specmd.core import state as residency
from specmd.core.rows import PUT_OFF
from specmd.errors import SpecmdError
from specmd.live.commands import FETCH, HOST, LOWBIT
from specmd.live.core import Decisions
from specmd.live.experts import expert_product
from specmd.live.service import Residence
from specmd.models.low_bit import low_bit_layouts
from specmd.models.moe import find_moe
from specmd.policy.registry import entries
from specmd.recording import Recorder
from specmd.trace import Trace

CHANGING = [
    (entry.axis, entry.name)
    for axis in ("route", "miss")
    for entry in entries(axis)
    if entry.origin == "built-in" and entry.lossy
]
WAYS: list[dict[str, Any]] = [
    {"capacity": 9},
    {"capacity": 7, "prefetch": "next_gate", "schedule": "cancel", "evict": "lfu"},
    {"capacity": 5, "admission": "bypass", "scope": "layer"},
]


@pytest.fixture(scope="module")
def training() -> Trace:
    model = build("olmoe")
    with Recorder(model, logits="full") as recorder:
        generate(model, 12, **prompt(1, 12, seed=5))
    return recorder.trace


def live(model: Any, **options: Any) -> Any:
    given = {"interpreted": True, "canary": True, "log_routing": True, "deterministic": True}
    return offload(model, **(given | options))


def masses(cache: Any) -> list[float]:
    whole, *parts = cache.masses.sum(axis=(0, 1)).tolist()
    return [part / whole for part in parts]


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize(("axis", "name"), CHANGING)
def test_a_simulation_of_the_log_has_its_digest(
    axis: str, name: str, options: dict[str, Any], training: Trace
) -> None:
    asked = options | {axis: name}
    model = build("olmoe")
    with live(model, training=training, **asked) as cache:
        generate(model, 8, **prompt(2, 9))
        moved, trace = cache.report().moved_bytes, cache.trace
    run = simulate(trace, **asked, training=training, bounds=False, interpreted=True)
    assert cache.decision_digest == run.decision_digest
    names = ("kept_mass", "lowbit_mass", "substituted_mass", "dropped_mass")
    assert masses(cache) == pytest.approx([run.metrics[name] for name in names], abs=1e-9)
    assert sum(masses(cache)) == pytest.approx(1.0)
    assert (moved > 0) == bool(cache.commands_by_key[[FETCH, LOWBIT]].any())


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("changed", [("route", "max_rank"), ("miss", "drop_priority_cascade")])
def test_every_family(family: str, changed: tuple[str, str], training: Trace) -> None:
    model, asked = build(family), {"capacity": 8, changed[0]: changed[1]}
    with live(model, **asked) as cache:
        generate(model, 8, **prompt(3, 9))
    run = simulate(cache.trace, **asked, bounds=False, interpreted=True)
    assert cache.decision_digest == run.decision_digest


@pytest.mark.parametrize(("axis", "name"), CHANGING)
@pytest.mark.parametrize("family", ["gpt_oss", "qwen3_moe"])
def test_what_is_computed_is_what_was_decided(
    family: str, axis: str, name: str, training: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every layer's output, against a dense sum over the executed pairs of every token.

    A pair that is put off is of the next layer's sum.
    """
    model = build(family)
    moe = find_moe(model)
    own = [{n: p.detach().clone() for n, p in m.experts.named_parameters()} for m in moe.layers]
    seen: list[dict[int, bool]] = []
    tensors = Residence.tensors

    def noted(self: Any, key: int, slot: int) -> Any:
        seen[-1][key] = self.slots.is_low[slot]
        return tensors(self, key, slot)

    decided: list[Any] = []
    put_off: list[Any] = []
    owed: list[Any] = [0.0]
    executed = Decisions.executed

    def read(self: Any) -> Any:
        decided.append(executed(self))
        fates = self.core.execution.rows.fate[: decided[-1][0].size]
        put_off.append(np.reshape(np.array(fates) == PUT_OFF, decided[-1][0].shape))
        return decided[-1]

    monkeypatch.setattr(Residence, "tensors", noted)
    monkeypatch.setattr(Decisions, "executed", read)
    with live(model, training=training, capacity=7, **{axis: name}) as cache:
        serve, low = cache._engine._serve, low_bit_layouts(cache._layouts, 4)

        def checked(number: int, experts: Any, hidden: Any, ids: Any, weights: Any) -> Any:
            seen.append({})
            count = len(decided)
            total = serve(number, experts, hidden, ids, weights)
            expected = torch.zeros_like(hidden) + (owed[0] if number > 0 else 0.0)
            owed[0] = torch.zeros_like(hidden)
            pairs = decided[-1] if len(decided) > count else (np.zeros((0, 0)),) * 2
            for token, (row, scales) in enumerate(zip(*pairs, strict=True)):
                for place, (expert, scale) in enumerate(
                    zip(row.tolist(), scales.tolist(), strict=True)
                ):
                    if expert < 0:
                        continue
                    key = number * moe.num_experts + expert
                    whole = {n: tensor[expert] for n, tensor in own[number].items()}
                    if seen[-1].get(key, False):
                        blob = cache._store.whole(key)
                        copy = torch.zeros(low[number].packed.blob_bytes, dtype=torch.uint8)
                        low[number].pack(blob, copy)
                        whole = low[number].unpack(low[number].packed.views(copy))
                    found = expert_product(experts, whole, hidden[token : token + 1])
                    total_of = owed[0] if put_off[-1][token, place] else expected
                    total_of[token] += scale * found[0]
            assert torch.allclose(total, expected, rtol=2e-3, atol=2e-3)
            assert number < len(moe.layers) - 1 or not owed[0].any()
            return total

        cache._engine._serve = checked
        generate(model, 6, **prompt(1, 9))
        cores = cache._decisions.core
        assert len(decided) > 10
        lows = [key for layer in seen for key, is_low in layer.items() if is_low]
        fetched_low = int(cache.counters[..., residency.LOWBIT_FETCHES].sum())
        assert bool(lows) == bool(fetched_low)
        assert bool(np.concatenate(put_off).any()) == (name == "deferral")
        assert not any(core_held for core_held in cores.hold)


def test_where_nothing_is_changed_nothing_is() -> None:
    model, inputs = build("olmoe"), prompt(2, 9)
    with live(model, capacity="100%") as cache:
        own = generate(model, **inputs)
    for same in (
        {"route": "top_k:keep=3"},
        {"route": "max_rank:always=3"},
        {"miss": "drop:factor=0"},
    ):
        with live(model, capacity=6, **same) as cache:
            found = generate(model, **inputs)
            assert masses(cache) == [1.0, 0.0, 0.0, 0.0]
        assert torch.equal(own[1], found[1])


def test_the_log_has_the_logits_that_a_recorder_has() -> None:
    model, inputs = build("olmoe"), prompt(2, 9)
    with Recorder(model, logits="full") as recorder:
        generate(model, **inputs)
    with live(model, capacity="100%", route="max_rank:always=3") as cache:
        generate(model, **inputs)
    ours, theirs = cache.trace.logits, recorder.trace.logits
    assert ours.dtype == theirs.dtype == np.float16
    assert np.abs(ours.astype(float) - theirs.astype(float)).max() < 2e-2
    with live(model, capacity=6) as cache:
        generate(model, **inputs)
    assert cache.trace.logits is None


def test_weights_that_are_no_softmax_are_refused() -> None:
    model = build("olmoe")
    for layer in find_moe(model).layers:
        layer.gate.register_forward_hook(_scaled)
    refused = pytest.raises(SpecmdError, match="no softmax of its logits")
    with live(model, capacity=6, route="max_rank"), refused:
        generate(model)
    with live(model, capacity=6, miss="drop") as cache:  # takes weights as they are
        generate(model)
    assert sum(masses(cache)) == pytest.approx(1.0)


def _scaled(_gate: Any, _args: Any, output: Any) -> Any:
    logits, weights, ids = output
    return logits, 3 * weights, ids


def test_compiled_wider_and_started_over(training: Trace) -> None:
    options = {"capacity": 20, "route": "max_rank", "miss": "drop_priority_cascade"}
    with live(tiny(), **options, interpreted=False) as cache:
        for width in (12, 40):  # more tokens than there was room for at first
            own = generate(tiny(), 6, **prompt(1, width, vocab=2048))
        digest, trace = cache.decision_digest, cache.trace
        assert cache.commands_by_key[[FETCH, LOWBIT]].any(axis=1).all()
        assert cache.counters[..., residency.DROPPED].any()
        cache.restart()
        for width in (12, 40):
            again = generate(tiny(), 6, **prompt(1, width, vocab=2048))
        assert cache.decision_digest == digest
    assert torch.equal(own[1], again[1])
    assert simulate(trace, **options, bounds=False, interpreted=True).decision_digest == digest


def test_copies_of_few_bits_move_fewer_bytes() -> None:
    sizes = {}
    for miss in ("overlap", "fetch_lowest_bit:bits=8", "fetch_lowest_bit:bits=4"):
        with live(tiny(), capacity=12, miss=miss) as cache:
            generate(tiny(), 4, **prompt(1, 6, vocab=2048))
            report = cache.report()
        fetched = cache.commands_by_key[[FETCH, LOWBIT]].sum()
        sizes[miss] = report.moved_bytes / fetched
        assert fetched == report.misses
        assert cache.commands_by_key[HOST].sum() == 0
    share = {miss: size / sizes["overlap"] for miss, size in sizes.items()}
    assert share["fetch_lowest_bit:bits=8"] == pytest.approx((8 + 16 / 64) / 32, abs=0.01)
    assert share["fetch_lowest_bit:bits=4"] == pytest.approx((4 + 16 / 64) / 32, abs=0.01)


def test_copies_of_few_bits_with_a_disk_behind_are_refused(tmp_path: Any) -> None:
    model = build("olmoe")
    model.save_pretrained(tmp_path)
    with pytest.raises(SpecmdError, match="leave host_capacity out"):
        live(model, checkpoint=tmp_path, host_capacity=6, miss="fetch_lowest_bit")
