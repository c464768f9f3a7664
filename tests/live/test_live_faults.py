"""Whatever goes wrong: a clear error or a right result, in bounded time, and the model restored."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from live_models import SIZES, build, generate, offload, prompt, weights_of

from specmd.errors import SpecmdError
from specmd.live.layer import Engine
from specmd.live.links.host import HostLink
from specmd.live.service import Residence
from specmd.live.stores import store as stores
from specmd.live.stores.pinning import Pinned
from specmd.live.stores.store import HostStore
from specmd.live.transfer import Transfer
from specmd.live.transfers import Mover
from specmd.models.layout import read_layouts
from specmd.models.moe import find_moe
from specmd.models.passes import cache_argument


@pytest.fixture
def model() -> Iterator[Any]:
    """A model that must come out of every test as it went in."""
    model = build("olmoe")
    weights, own = weights_of(model), generate(model)
    attributes = set(model.__dict__)
    implementation = model.config._experts_implementation
    yield model
    assert set(model.__dict__) == attributes
    assert model.config._experts_implementation == implementation
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[name]), name
    again = generate(model)
    assert torch.equal(own[0], again[0])
    assert torch.equal(own[1], again[1])


def live(model: Any, **options: Any) -> Any:
    return offload(model, **({"capacity": 6, "interpreted": True, "timeout_s": 5.0} | options))


def on_call(number: int, fault: Any) -> Any:
    """Wrap a function so that its call of that number does something else."""

    def wrap(original: Any) -> Any:
        calls = 0

        def called(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                return fault()
            return original(*args, **kwargs)

        return called

    return wrap


def raising(error: BaseException) -> Any:
    def fault() -> None:
        raise error

    return fault


def test_a_failed_pin_makes_the_rest_pageable(model: Any) -> None:
    moe = find_moe(model)
    layouts = read_layouts(moe)
    layout = layouts.of_layer[0]
    pinned: list[int] = []

    def pin(tensor: torch.Tensor) -> Pinned:
        if len(pinned) == 1:
            raise RuntimeError("CUDA error: out of memory")
        pinned.append(tensor.numel())
        return Pinned(tensor, tensor.numel(), lambda: None)

    store = HostStore(layouts, pin=pin)
    for layer in moe.layers:
        store.take_layer(layer.experts)
    assert [store.is_pinned(key) for key in (0, 7, 8, 23)] == [True, True, False, False]
    assert store.pinned_bytes == 8 * layout.blob_bytes
    assert "out of memory" in store.pin_failure
    tensors = layout.views(store.blob(9))
    assert torch.equal(tensors["down_proj"], moe.layers[1].experts.down_proj[1])


def test_the_pinned_budget_is_kept(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    moe = find_moe(model)
    layouts = read_layouts(moe)
    layout = layouts.of_layer[0]
    budget = 2 * 8 * layout.blob_bytes + 1
    monkeypatch.setattr(stores, "locked_size", lambda size: size)
    lock = partial(Pinned, locked_bytes=8 * layout.blob_bytes, release=lambda: None)
    store = HostStore(layouts, pinned_budget_bytes=budget, pin=lock)
    for layer in moe.layers:
        store.take_layer(layer.experts)
    assert store.pinned_bytes == store.locked_bytes == 2 * 8 * layout.blob_bytes
    assert not store.pin_failure
    assert not store.is_pinned(23)


def test_a_failed_read_names_the_expert(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = on_call(5, raising(OSError("the disk is gone")))
    monkeypatch.setattr(HostStore, "read", fault(HostStore.read))
    with live(model) as cache:
        with pytest.raises(SpecmdError, match=r"copying expert \d+ failed: OSError: the disk"):
            generate(model)
        with pytest.raises(SpecmdError, match="the disk is gone"):
            generate(model)
    assert cache.report().misses > 0


def test_a_failed_prefetch_is_not_swallowed(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Mover._move

    def move(self: Mover, transfer: Transfer, start: int) -> int:
        if transfer.key == 13:
            raise MemoryError("no room")
        return original(self, transfer, start)

    monkeypatch.setattr(Mover, "_move", move)
    with (
        live(model, capacity=20, prefetch="random:width=8") as _,
        pytest.raises(SpecmdError, match="expert 13 failed: MemoryError"),
    ):
        generate(model, 20)


@pytest.mark.parametrize("death", [SystemExit(3), KeyboardInterrupt(), RuntimeError("odd")])
def test_a_dying_copy_thread(
    model: Any, monkeypatch: pytest.MonkeyPatch, death: BaseException
) -> None:
    monkeypatch.setattr(Mover, "_move", on_call(7, raising(death))(Mover._move))
    with live(model), pytest.raises(SpecmdError, match="copy thread stopped"):
        generate(model)


def test_a_copy_thread_that_ends_without_a_word(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mover, "_work", lambda self: None)
    with live(model), pytest.raises(SpecmdError, match="ended without a word"):
        generate(model)


def test_a_stuck_link_times_out(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(HostLink, "copy", lambda *_: over.wait(60))
    with live(model, timeout_s=0.4):
        with pytest.raises(SpecmdError, match=r"waited 0.4 s for expert"):
            generate(model)
        assert not over.is_set()  # it gave up while the copy was still stuck
        over.set()


@pytest.mark.parametrize("place", ["compute", "decide", "sum"])
def test_ctrl_c_in_mid_generation(model: Any, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Both leaving the block and going on inside it are fine."""
    stop = raising(KeyboardInterrupt())
    with live(model, prefetch="next_gate", canary=True):
        resident = generate(model)
        with monkeypatch.context() as patched:
            if place == "compute":
                patched.setattr(Residence, "_locate", on_call(20, stop)(Residence._locate))
            elif place == "decide":
                patched.setattr(Residence, "_carry_out", on_call(9, stop)(Residence._carry_out))
            else:
                patched.setattr(Engine, "_look_ahead", on_call(9, stop)(Engine._look_ahead))
            with pytest.raises(KeyboardInterrupt):
                generate(model)
        again = generate(model)
        assert torch.equal(resident[1], again[1])
    monkeypatch.setattr(Residence, "_locate", on_call(20, stop)(Residence._locate))
    with pytest.raises(KeyboardInterrupt), live(model):
        generate(model)
    monkeypatch.undo()


def test_failing_on_the_way_in_restores(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mover, "start", lambda self: raising(KeyboardInterrupt())())
    with pytest.raises(KeyboardInterrupt):
        live(model).__enter__()
    fault = on_call(2, raising(MemoryError("arena")))
    monkeypatch.setattr(HostStore, "take_layer", fault(HostStore.take_layer))
    with pytest.raises(MemoryError):
        live(model).__enter__()


def test_offload_inside_offload(model: Any) -> None:
    with live(model):
        with pytest.raises(SpecmdError, match="offloaded already"), live(model):
            pass
        generate(model)
    with live(model) as cache:
        generate(model)
    with pytest.raises(SpecmdError, match="entered once"):
        cache.__enter__()


def test_a_model_that_is_not_moe() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    dense = LlamaForCausalLM(LlamaConfig(**SIZES, intermediate_size=32))
    with pytest.raises(SpecmdError, match="no Mixture-of-Experts layer"):
        offload(dense)


def test_an_unknown_architecture(model: Any) -> None:
    experts = find_moe(model).layers[1].experts
    kept = experts.__dict__.pop("has_gate")
    with pytest.raises(SpecmdError, match="cannot be offloaded"):
        offload(model)
    experts.has_gate = kept
    weights = experts._parameters.pop("down_proj")
    with pytest.raises(SpecmdError, match="holds no fused down_proj"):
        offload(model)
    experts._parameters["down_proj"] = weights


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"link": "accelerator"}, "no accelerator"),
        ({"link": "cpu", "device": "cuda"}, "the cpu link cannot"),
        ({"link": "pigeon"}, "choose auto"),
        ({"throttle": (0, 0)}, "bytes per second"),
        ({"staging_slots": 0}, "give 1 or more"),
        ({"capacity": "lots"}, "not understood"),
        ({"evict": "lur"}, "lru"),
    ],
)
def test_impossible_requests(model: Any, options: dict[str, Any], words: str) -> None:
    if words == "no accelerator" and torch.accelerator.is_available():
        pytest.skip("there is an accelerator here")
    with pytest.raises(SpecmdError, match=words):
        live(model, **options)


def test_experts_called_outside_a_pass(model: Any) -> None:
    experts = find_moe(model).layers[0].experts
    with live(model), pytest.raises(SpecmdError, match="outside a forward pass"):
        experts(torch.zeros(1, 32), torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 3))


def test_memory_is_slots_plus_dense(model: Any) -> None:
    dense = sum(
        p.numel() * p.element_size() for n, p in model.named_parameters() if ".experts." not in n
    )
    with live(model, capacity=5, staging_slots=1) as cache:
        held = sum(p.numel() * p.element_size() for p in model.parameters() if not p.is_meta)
        assert held == dense
        report = cache.report()
        assert report.slot_bytes == 6 * cache._layouts.largest_bytes
        assert report.store_bytes == 24 * cache._layouts.largest_bytes
    assert all(not p.is_meta for p in model.parameters())


def test_nothing_grows_over_five_hundred_steps(model: Any) -> None:
    inputs = prompt(1, 4)
    with live(model, prefetch="random:width=2") as cache, torch.no_grad():

        def steps(count: int) -> int:
            name = cache_argument(model.model)
            past = model(**inputs, use_cache=True)[name]
            token = torch.full((1, 1), 5)
            for _ in range(count):
                model(token, **{name: past}, use_cache=True)
                past.crop(-1)
            del past
            gc.collect()
            return sum(1 for item in gc.get_objects() if issubclass(type(item), torch.Tensor))

        steps(50)
        before = steps(50)
        assert steps(400) <= before + 2
        assert len(cache._residence._home) <= 24
        assert len(cache._residence._under_way) <= 24
        assert len(cache._mover.demand) == 0
