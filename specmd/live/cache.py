"""The live cache of one model: its parts put together, plugged in, and taken out again.

Everything is undone in reverse whatever happens, also if it fails half way in.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from specmd.errors import SpecmdError
from specmd.live.commands import NUM_COMMANDS
from specmd.live.core import Decisions
from specmd.live.host import HostTier
from specmd.live.layer import Engine
from specmd.live.layer_buffers import LayerBuffers
from specmd.live.links.host import HostLink
from specmd.live.links.link import Link
from specmd.live.links.speed import time_link
from specmd.live.links.throttle import Throttle
from specmd.live.passes import Passes
from specmd.live.patch import Patch
from specmd.live.placement import find_device, plan_copies, plan_host, plan_schedule, plan_world
from specmd.live.rates import known_rates
from specmd.live.report import Report, make_report
from specmd.live.room import dense_bytes, room_on
from specmd.live.routing_log import RoutingLog
from specmd.live.service import Residence
from specmd.live.slots import Slots
from specmd.live.stalls import CPU_EXPERT
from specmd.live.stores.checkpoint import CheckpointStore
from specmd.live.stores.low_bit import LowBitStore
from specmd.live.stores.store import ExpertStore, HostStore
from specmd.live.stores.tiered import OnDisk, TieredStore
from specmd.live.tiered import TieredMover
from specmd.live.timing import StepTimes
from specmd.live.transfers import Mover
from specmd.models.facts import model_facts, size_facts
from specmd.models.gates import watch_gates
from specmd.models.layout import read_layouts
from specmd.models.low_bit import low_bit_share
from specmd.models.moe import find_moe
from specmd.policy.registry import choose
from specmd.runs.metrics import PARTS
from specmd.runs.policy_metrics import Published
from specmd.trace import Trace

_OFFLOADED: WeakSet[nn.Module] = WeakSet()


class Offload:
    """A live expert cache around one model. Made by `specmd.offload`, which says what it takes."""

    def __init__(self, model: nn.Module, options: dict[str, Any]) -> None:
        self._model, self._options = model, options
        self._moe = find_moe(model)
        self._layouts = read_layouts(self._moe)
        self._facts = model_facts(model, self._moe)
        self.device, self.link_name = find_device(options["link"], options["device"])
        room = room_on(self.device, model, self._moe, options)
        self._world = plan_world(self._moe, self._facts, options, room)
        self.capacity_slots = int(self._world.capacity.sum())
        self._miss = choose("miss", options["miss"])
        if "rates" in self._miss.needs:
            known = known_rates(self._moe, self._layouts, self.device, options)
            self._world = self._world._replace(rates=known)
        behind = plan_host(self._moe, self._world, options)
        self._low = plan_copies(self._layouts, self._miss, tiered=behind is not None)
        self._schedule = plan_schedule(options["schedule"])
        self._decisions = Decisions(
            self._world,
            choose("evict", options["evict"]),
            choose("prefetch", options["prefetch"]),
            self._schedule,
            admission=choose("admission", options["admission"]),
            bypass_wide=options["prefill"] != "waves",
            route=choose("route", options["route"]),
            miss=self._miss,
            low_share=low_bit_share(self._low),
            interpreted=(interpreted := options["interpreted"]),
        )
        self._tier = None if behind is None else HostTier(*behind, interpreted=interpreted)
        throttle = options["throttle"]
        self._throttle = None if throttle is None else Throttle(*throttle)
        self._store: ExpertStore | None = None
        self._copies: LowBitStore | None = None
        self._slots: Slots | None = None
        self._mover: Mover | None = None
        self._residence: Residence | None = None
        self._engine: Engine | None = None
        self._passes = Passes(self._moe, model, options["routing"])
        self._log: RoutingLog | None = None
        self._patch: Patch | None = None
        self._hooks: list[RemovableHandle] = []
        self._threads = 0
        self._entered = False

    # What a user reads.

    @property
    def counters(self) -> npt.NDArray[np.int64]:
        """Counters (2 phases, layers, NUM_COUNTERS), see `specmd.core.state`."""
        return self._decisions.kernel.counters

    @property
    def final_counters(self) -> npt.NDArray[np.int64]:
        """Counters as of a run that ends now: prefetches not used so far count as wasted."""
        return self._decisions.kernel.final_counters

    @property
    def decision_digest(self) -> str:
        """Hash of all decisions so far: that of a simulation of the same routing."""
        return self._decisions.kernel.digest

    @property
    def policy_metrics(self) -> Published:
        """What the policies publish of themselves; raises SpecmdError if books do not add up."""
        self._settle_host()
        return self._decisions.published() | ({} if self._tier is None else self._tier.published())

    @property
    def rates(self) -> npt.NDArray[np.float64]:
        """Seconds an expert takes, (4,) as `World.rates`; empty unless a policy needs them."""
        return self._world.rates

    @property
    def low_share(self) -> float:
        """Bytes of a copy of few bits over those of the expert; 1 where there are none."""
        return low_bit_share(self._low)

    @property
    def masses(self) -> npt.NDArray[np.float64] | None:
        """Masses (2 phases, layers, NUM_MASSES), see `specmd.core.execution`; None if not told."""
        return self._decisions.kernel.masses

    @property
    def commands_by_key(self) -> npt.NDArray[np.int64]:
        """How often each command (`specmd.live.commands`) was given of each key, (8, keys)."""
        return np.array(self._decisions.link.written, np.int64).reshape(NUM_COMMANDS, -1)

    @property
    def host_counters(self) -> npt.NDArray[np.int64] | None:
        """Counters of the host tier; its misses were read from the disk. None without one."""
        self._settle_host()
        return None if self._tier is None else self._tier.counters

    @property
    def host_digest(self) -> str:
        """Hash of the host tier's decisions so far; empty without one."""
        self._settle_host()
        return "" if self._tier is None else self._tier.digest

    def _settle_host(self) -> None:
        """Where all transfers end before each event, let those of the last event end, too."""
        if self._options["deterministic"] and self._tier is not None and self._mover is not None:
            self._mover.drain()

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
            **size_facts(self._moe),
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
            dense_bytes=dense_bytes(self._model),
        )

    @property
    def step_seconds(self) -> npt.NDArray[np.float64]:
        """Seconds (steps, PARTS) of the forward passes so far, see `specmd.live.timing`."""
        times = self._passes.times
        return np.zeros((0, len(PARTS))) if times is None else times.seconds()

    def restart(self) -> None:
        """Empty the cache and forget what it counted and decided, as if just entered.

        Bytes moved and the peaks of memory are kept. Not to be called while the model runs.
        """
        if self._residence is None or self._engine is None:
            raise SpecmdError("nothing to restart: the offload block was never entered")
        self._residence.restart()
        self._passes.restart()
        self._log = self._new_log()
        self._engine.restart(self._log)

    @property
    def views(self) -> list[dict[str, Tensor]]:
        """Tensors of the first layer's experts in the slots, by the names of its parameters.

        For measurements: what lies in a slot changes as the model runs.
        """
        views = [] if self._slots is None else self._slots.views[0][: self.capacity_slots]
        return [tensors for tensors in views if tensors]

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
        self._log = self._new_log()
        self._threads = torch.get_num_threads()
        if self.link_name == "cpu":
            spare = max(1, min(self._threads, (os.cpu_count() or 2) - 1))
            torch.set_num_threads(max(1, int(options["compute_threads"] or spare)))
        self._slots = slots = Slots(
            self._layouts,
            self._world.capacity.tolist(),
            self._staging_slots(),
            self.device,
            canary=options["canary"],
            of_layer=self._world.pool[:: moe.num_experts].tolist(),
            low=self._low,
        )
        link = self._make_link(slots)
        self._store = store = self._make_store(link)
        self._mover = mover = self._make_mover(link, store, slots)
        self._residence = Residence(
            self._decisions,
            slots,
            mover,
            blocks=self._miss.blocks,
            deterministic=options["deterministic"],
            buffers=self._buffers(),
        )
        self._engine = Engine(
            moe,
            self._passes,
            self._decisions,
            self._residence,
            self._log,
            options["routing"],
            options["timeline"],
        )
        if options["timeline"] is not None:
            options["timeline"].experts = moe.num_experts
        self._passes.times = StepTimes(self._spent, options["timeline"], self._settle())
        moved_to = None if self.link_name == "cpu" else self.device
        self._patch = Patch(self._model, moe, self._layouts, moved_to)
        self._patch.empty_experts(store)
        if self._low:
            budget = options["pinned_budget"] if link.needs_pinned else 0
            self._copies = mover.copies = LowBitStore(store, self._low, budget)
        self._patch.move_dense()
        self._passes.install()
        self._patch.wrap_generate(self._passes.follow)
        self._patch.plug_in(self._engine.forward)
        if self._decisions.reads_logits:
            self._hooks = watch_gates(moe, self._engine.hear)
        if link.needs_pinned and self._tier is None:
            mover.unloaded_bytes_per_s = time_link(
                link,
                store,
                slots,
                chunk_bytes=options["chunk_bytes"],
                timeout_s=options["timeout_s"],
            )
        mover.start()
        self._residence.preload()

    def _tear_down(self) -> None:
        try:
            if self._residence is not None:
                self._residence.deferral.close()
            if self._mover is not None:
                self._mover.stop()
        finally:
            self._passes.remove()
            while self._hooks:
                self._hooks.pop().remove()
            if self._patch is not None:
                self._patch.remove(self._store)
            if self._threads:
                torch.set_num_threads(self._threads)
            _OFFLOADED.discard(self._moe.decoder)
            for store in (self._store, self._copies):
                if store is not None:
                    store.close()
            if self._slots is not None:
                self._slots.close()

    def _new_log(self) -> RoutingLog | None:
        if not self._options["log_routing"]:
            return None
        return RoutingLog(len(self._moe.layers), self._moe.num_experts)

    def _spent(self) -> dict[str, float]:
        """Seconds so far by part of a step, all but computing."""
        engine, residence = self._engine, self._residence
        assert engine is not None
        assert residence is not None
        deciding_s = engine.routing_s + engine.deciding_s + residence.deciding_s
        return {"overhead": deciding_s, CPU_EXPERT: residence.host_s, **residence.stall_s}

    def _settle(self) -> Callable[[], None] | None:
        """Return what waits for the device's kernels, None where the host computes."""
        if self.link_name == "cpu":
            return None
        return lambda: torch.accelerator.current_stream(self.device).synchronize()

    def _staging_slots(self) -> int:
        double = self._options["prefill"] == "double_buffer"
        return 2 * self._moe.num_experts if double else int(self._options["staging_slots"])

    def _buffers(self) -> LayerBuffers | None:
        if self._options["prefill"] != "double_buffer":
            return None
        return LayerBuffers(self.capacity_slots, len(self._moe.layers), self._moe.num_experts)

    def _make_mover(self, link: Link, store: ExpertStore, slots: Slots) -> Mover:
        options = self._options
        more = {name: options[name] for name in ("chunk_bytes", "timeout_s", "timeline")}
        order = self._schedule.by_score, self._schedule.by_deadline
        more |= {"by_score": order[0], "by_deadline": order[1], "throttle": self._throttle}
        if self._tier is None:
            return Mover(link, store, slots, **more)
        assert isinstance(store, TieredStore)
        return TieredMover(link, store, slots, tier=self._tier, host=store, **more)

    def _make_store(self, link: Link) -> ExpertStore:
        store = self._experts_of(link)
        if self._tier is None:
            return store
        budget = self._options["pinned_budget"] if link.needs_pinned else 0
        assert isinstance(store, OnDisk)
        return TieredStore(store, self._tier.world, pinned_budget_bytes=budget)

    def _experts_of(self, link: Link) -> ExpertStore:
        options, moe = self._options, self._moe
        if options["store"] is not None:
            store: ExpertStore = options["store"]
            return store
        if options["checkpoint"] is not None:
            return CheckpointStore(options["checkpoint"], moe, self._layouts)
        budget = options["pinned_budget"] if link.needs_pinned else 0
        return HostStore(self._layouts, pinned_budget_bytes=budget)

    def _make_link(self, slots: Slots) -> Link:
        if self.link_name == "cpu":
            return HostLink(slots)
        from specmd.live.links.accelerator import AcceleratorLink

        options = self._options
        return AcceleratorLink(slots, options["chunk_bytes"], timeout_s=options["timeout_s"])
