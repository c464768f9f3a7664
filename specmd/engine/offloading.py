"""`with specmd.offload(model, ...) as cache:` a model whose experts live behind a cache.

Inside the block the model is used as always; its experts are in host memory, a fixed number of them
in slots on the device, and the policies of the simulator decide which. On the way out, by whatever
way, the model is what it was before.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from weakref import WeakSet

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from specmd import residency
from specmd.config import Scope, parse_capacity
from specmd.engine.decisions import Decisions
from specmd.engine.engine import Engine
from specmd.engine.host_link import HostLink
from specmd.engine.layout import read_layout
from specmd.engine.link import Link
from specmd.engine.mover import STAGING_BUFFERS, Mover
from specmd.engine.passes import Passes
from specmd.engine.patch import Patch
from specmd.engine.report import Report, make_report
from specmd.engine.residence import Residence
from specmd.engine.routing_log import RoutingLog
from specmd.engine.slots import Slots
from specmd.engine.store import ExpertStore, HostStore
from specmd.engine.throttle import Throttle
from specmd.errors import SpecmdError
from specmd.policy.event import World
from specmd.policy.registry import choose
from specmd.recorder.facts import model_facts
from specmd.recorder.gates import find_moe
from specmd.recorder.requests import read_call
from specmd.trace import Trace

LinkName = Literal["auto", "cpu", "accelerator"]
_OFFLOADED: WeakSet[nn.Module] = WeakSet()


class Offload:
    """A live expert cache around one model. Made by `specmd.offload`, which says what it takes."""

    def __init__(self, model: nn.Module, options: dict[str, Any]) -> None:
        self._model, self._options = model, options
        self._moe = find_moe(model)
        self._layout = read_layout(self._moe)
        self._facts = model_facts(model, self._moe)
        self.device, self.link_name = _place(options["link"], options["device"])
        self._world, self.capacity_slots = self._plan()
        self._miss = choose("miss", options["miss"]).create()
        self._schedule = choose("schedule", options["schedule"]).create()
        self._decisions = Decisions(
            self._world,
            choose("evict", options["evict"]),
            choose("prefetch", options["prefetch"]),
            self._schedule,
            admission=residency.BYPASS if options["admission"] == "bypass" else residency.FORCED,
            interpreted=options["interpreted"],
        )
        throttle = options["throttle"]
        self._throttle = None if throttle is None else Throttle(*throttle)
        self._store: ExpertStore | None = None
        self._slots: Slots | None = None
        self._mover: Mover | None = None
        self._residence: Residence | None = None
        self._engine: Engine | None = None
        self._passes = Passes(self._moe)
        self._log: RoutingLog | None = None
        self._patch: Patch | None = None
        self._threads = 0
        self._entered = False

    # What a user reads.

    @property
    def counters(self) -> npt.NDArray[np.int64]:
        """Counters (2 phases, layers, NUM_COUNTERS), see `specmd.residency`."""
        return self._decisions.counters

    @property
    def decision_digest(self) -> str:
        """Hash of all decisions so far: that of a simulation of the same routing."""
        return self._decisions.digest

    @property
    def trace(self) -> Trace:
        """The routing the decisions were made from, if `log_routing=True` was asked for.

        Raises:
            SpecmdError: it was not asked for, or no token went through the model.

        """
        if self._log is None:
            raise SpecmdError("the routing was not logged: give offload(..., log_routing=True)")
        name = getattr(getattr(self._model, "config", None), "_name_or_path", "")
        header = {
            "model": Path(name or type(self._model).__name__).name,
            "expert_bytes": self._facts.get("expert_bytes"),
            "shape": self._facts,
            "kind": "recorded",
        }
        return self._log.trace(header)

    def report(self) -> Report:
        """Return counts, bytes, stalls, bandwidth and memory so far."""
        if self._mover is None or self._residence is None or self._store is None:
            raise SpecmdError("nothing to report: the offload block was never entered")
        assert self._engine is not None
        return make_report(
            decisions=self._decisions,
            mover=self._mover,
            residence=self._residence,
            engine=self._engine,
            store=self._store,
            link_name=self.link_name,
            throttle=self._throttle,
        )

    # The block.

    def __enter__(self) -> Self:
        if self._moe.decoder in _OFFLOADED:
            raise SpecmdError("this model is offloaded already: leave that with-block first")
        if self._entered:
            raise SpecmdError("an offload is entered once: make another with specmd.offload(...)")
        self._entered = True
        _OFFLOADED.add(self._moe.decoder)
        try:
            self._set_up()
        except BaseException:
            self._tear_down()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._tear_down()

    def _set_up(self) -> None:
        options, moe = self._options, self._moe
        if options["log_routing"]:
            depth = self._decisions.depth
            self._log = RoutingLog(len(moe.layers), moe.num_experts, depth)
        self._threads = torch.get_num_threads()
        if self.link_name == "cpu":
            spare = max(1, min(self._threads, (os.cpu_count() or 2) - 1))
            torch.set_num_threads(max(1, int(options["compute_threads"] or spare)))
        self._slots = slots = Slots(
            self._layout,
            self.capacity_slots,
            options["staging_slots"],
            self.device,
            canary=options["canary"],
        )
        link = self._make_link(slots)
        store = HostStore(
            self._layout,
            moe.num_experts,
            len(moe.layers),
            pinned_budget_bytes=options["pinned_budget"] if link.needs_pinned else 0,
        )
        self._store = store
        self._mover = mover = Mover(
            link,
            store,
            slots,
            chunk_bytes=options["chunk_bytes"],
            by_score=self._schedule.by_score,
            timeout_s=options["timeout_s"],
            throttle=self._throttle,
        )
        self._residence = Residence(
            self._decisions,
            slots,
            mover,
            blocks=self._miss.blocks,
            deterministic=options["deterministic"],
        )
        self._engine = Engine(moe, self._passes, self._decisions, self._residence, self._log)
        moved_to = None if self.link_name == "cpu" else self.device
        self._patch = Patch(self._model, moe, self._layout, moved_to)
        self._patch.empty_experts(store)
        self._patch.move_dense()
        self._passes.install()
        self._patch.wrap_generate(self._wrap)
        self._patch.plug_in(self._engine.forward)
        mover.start()

    def _tear_down(self) -> None:
        try:
            if self._mover is not None:
                self._mover.stop()
        finally:
            self._passes.remove()
            if self._patch is not None:
                self._patch.remove(self._store)
            if self._threads:
                torch.set_num_threads(self._threads)
            _OFFLOADED.discard(self._moe.decoder)
            if self._store is not None:
                self._store.close()
            if self._slots is not None:
                self._slots.close()

    def _make_link(self, slots: Slots) -> Link:
        if self.link_name == "cpu":
            return HostLink(slots)
        from specmd.engine.accelerator_link import AcceleratorLink

        return AcceleratorLink(slots, self._options["chunk_bytes"], STAGING_BUFFERS)

    def _wrap(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def generate(*args: Any, **kwargs: Any) -> Any:
            self._passes.open_call(read_call(self._model, args, kwargs))
            try:
                return original(*args, **kwargs)
            finally:
                self._passes.close_call()

        return generate

    def _plan(self) -> tuple[World, int]:
        options, moe = self._options, self._moe
        layers, experts = len(moe.layers), moe.num_experts
        keys = layers * experts
        slots = parse_capacity(options["capacity"], layers, experts, self._layout.blob_bytes)
        slots = min(slots, keys)
        quotas = [slots]
        if options["scope"] == "layer":
            quotas = choose("allocate", options["allocate"]).create().quotas(slots, layers)
        capacity = np.minimum(np.asarray(quotas, np.int64), keys // len(quotas))
        popularity = np.zeros(0)
        training = options["training"]
        if training is not None:
            from specmd.replay import _popularity as of_training

            same = (training.header.num_layers, training.header.num_experts)
            if same != (layers, experts):
                raise SpecmdError(
                    "the training trace is of another model: layers or experts differ"
                )
            popularity = of_training(training)
        top_k = self._facts.get("top_k") or getattr(moe.layers[0].gate, "top_k", None)
        if not top_k:
            raise SpecmdError("the model does not say how many experts a token chooses")
        seed = int(options["seed"]) & 0x7FFFFFFF
        world = World(layers, experts, int(top_k), len(quotas), capacity, seed, popularity)
        return world, int(capacity.sum())


def offload(
    model: nn.Module,
    evict: str = "least_stale",
    prefetch: str = "none",
    schedule: str = "guard",
    miss: str = "overlap",
    capacity: int | str = "5%",
    *,
    device: torch.device | str | None = None,
    link: LinkName = "auto",
    throttle: tuple[float, float] | None = None,
    deterministic: bool = False,
    scope: Scope = "global",
    allocate: str = "uniform",
    admission: Literal["forced", "bypass"] = "forced",
    training: Trace | None = None,
    pinned_budget: int | None = None,
    chunk_bytes: int = 4 << 20,
    staging_slots: int = 2,
    seed: int = 0,
    log_routing: bool = False,
    timeout_s: float = 60.0,
    compute_threads: int | None = None,
    interpreted: bool = False,
    canary: bool = False,
) -> Offload:
    """Put a live expert cache between a transformers MoE model and its experts.

    Args:
        model: a transformers 5 MoE model, on the host.
        evict: eviction policy, `name` or `name:key=value,...`, like all policies here.
        prefetch: prefetcher.
        schedule: how prefetches are ordered, guarded and cancelled.
        miss: "overlap" computes what is there, "block" waits for all first.
        capacity: slots (51), slots a layer ("16/layer"), a share ("5%"), or bytes ("0.6GB").
        device: where slots and dense weights go; by default the accelerator torch reports, if any.
        link: "cpu" keeps all in host memory, "accelerator" copies to `device`.
        throttle: (bytes per second, latency in seconds) that copies are paced to, or None.
        deterministic: complete all transfers before each event, as a replay does.
        scope: "global" for one pool, "layer" for a quota a layer.
        allocate: how `scope="layer"` divides the slots.
        admission: "forced", or "bypass" where a policy may refuse to admit.
        training: the trace that policies fitted beforehand are fitted on.
        pinned_budget: bytes of host memory that may be pinned; None is no limit.
        chunk_bytes: a demand waits for at most one chunk of a prefetch.
        staging_slots: slots, beyond the capacity, for experts that only pass through.
        seed: of random policies.
        log_routing: keep the routing, see `Offload.trace`.
        timeout_s: a wait longer than this is an error.
        compute_threads: torch threads while inside, on the cpu link; by default all cores but one,
            because with none to itself the copy thread hides almost nothing.
        interpreted: run the residency core as Python, to debug it or a policy.
        canary: overwrite a slot with NaN before another expert comes; for tests.

    Raises:
        SpecmdError: no MoE model, an unknown architecture, a policy that needs the future, an
            impossible capacity, no accelerator where one is asked for.

    """
    options = dict(locals())
    del options["model"]
    if staging_slots < 1:
        raise SpecmdError(f"staging_slots {staging_slots}: give 1 or more")
    return Offload(model, options)


def _place(link: str, device: torch.device | str | None) -> tuple[torch.device, str]:
    """Return the device of the slots, and "cpu" or "accelerator"."""
    if link not in ("auto", "cpu", "accelerator"):
        raise SpecmdError(f"link '{link}': choose auto, cpu or accelerator")
    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    wanted = None if device is None else torch.device(device)
    if link == "auto":
        place = wanted or there
        link = "accelerator" if place is not None and place.type != "cpu" else "cpu"
    if link == "cpu":
        if wanted is not None and wanted.type != "cpu":
            raise SpecmdError(f"the cpu link cannot copy to {wanted}: give link='accelerator'")
        return torch.device("cpu"), "cpu"
    if there is None:
        raise SpecmdError("torch reports no accelerator here: give link='cpu' or leave it out")
    wanted = wanted or there
    if wanted.type != there.type:
        raise SpecmdError(f"device {wanted}: the accelerator here is {there.type}")
    index = wanted.index if wanted.index is not None else torch.accelerator.current_device_index()
    return torch.device(wanted.type, index), "accelerator"
