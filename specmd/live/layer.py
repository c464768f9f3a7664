"""The engine: what happens when an MoE layer of an offloaded model runs.

The router's choice is brought to the host (its cost is measured: it is paid in every layer), turned
into the event the residency core knows (which keys, how many tokens each, how much gate weight),
decided, and carried out: experts are computed as they arrive and summed in a fixed order. Choices
of padding and of requests that have ended demand nothing and get nothing.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from specmd.errors import SpecmdError
from specmd.live.core import Decisions
from specmd.live.executed import TrueRows, executed_weights, spread, true_rows
from specmd.live.experts import Grouping, sum_in_order, weighted_product
from specmd.live.on_host import HostRows
from specmd.live.passes import Passes
from specmd.live.ranges import named
from specmd.live.routing import Routing
from specmd.live.routing_log import RoutingLog, host_weights
from specmd.live.service import LATER, ON_HOST, Residence
from specmd.models.gates import halved
from specmd.models.lookahead import Lookahead
from specmd.models.moe import MoeModel
from specmd.policy.needs import NEEDS
from specmd.runs.timeline import Timeline


class Engine:
    """Serves the experts of one model.

    Args:
        moe: its MoE layers.
        passes: follows its forward passes.
        decisions: decides.
        residence: carries out.
        log: notes the routing, or None.
        routing: chooses in place of the model's gates, or None.
        timeline: takes down layers and experts, or None.

    Attributes:
        routing_s: time spent on bringing the router's choice to the host and reading it.
        deciding_s: time spent on scores and in the prefetcher.
        events: layers served.

    """

    def __init__(
        self,
        moe: MoeModel,
        passes: Passes,
        decisions: Decisions,
        residence: Residence,
        log: RoutingLog | None,
        routing: Routing | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        self._moe, self._passes, self._routing = moe, passes, routing
        self._timeline = timeline
        self._decisions, self._residence, self._log = decisions, residence, log
        self._layer_of = {id(layer.experts): n for n, layer in enumerate(moe.layers)}
        self._keys = np.arange(len(moe.layers) * moe.num_experts).reshape(-1, moe.num_experts)
        self._lookahead = Lookahead(moe.layers, decisions.depth)
        wanted = "renormalised" in decisions.prefetch.needs
        if wanted and not self._lookahead.has_norms:
            raise SpecmdError(
                f"{decisions.prefetch.spelled}: no norm was found in front of the model's gates: "
                "use next_gate"
            )
        self._lookahead.has_norms = wanted
        self._weighs = "weights" in decisions.needs
        self.routing_s = self.deciding_s = 0.0
        self.events = 0
        self._heard: tuple[int, Tensor] | None = None  # the gate that ran last, its logits
        self._rows: HostRows | None = None  # of the present event, for experts on the host
        self._crossing: list[Tensor] = []  # products on their way to the device

    def hear(self, layer: int, logits: Tensor) -> None:
        """Take the logits of a gate that has run, where decisions need them (`watch_gates`)."""
        self._heard = layer, logits

    def forward(self, experts: nn.Module, hidden: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        """Compute the routed experts of a layer, as the `experts` module would.

        Args:
            experts: the module that is called.
            hidden: (T, H).
            ids: (T, K) chosen experts.
            weights: (T, K) router weights.

        Returns:
            (T, H).

        Raises:
            SpecmdError: called outside a forward pass, or a copy failed.

        """
        if not torch.is_grad_enabled():
            return self._forward(experts, hidden, ids, weights)
        with torch.no_grad():
            total = self._forward(experts, hidden, ids, weights)
        if hidden.requires_grad or weights.requires_grad:
            refusing: Any = _WithoutGradient.apply
            total = refusing(total, hidden, weights)
        return total

    def _forward(self, experts: nn.Module, hidden: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        number = self._layer_of[id(experts)]
        with named(f"specmd layer {number}", hidden.device):
            return self._serve(number, experts, hidden, ids, weights)

    def _serve(
        self, number: int, experts: nn.Module, hidden: Tensor, ids: Tensor, weights: Tensor
    ) -> Tensor:
        passes, count = self._passes, self._moe.num_experts
        if not passes.is_pass_of(hidden.shape[0]):
            raise SpecmdError(
                f"{self._moe.layers[number].name}: experts were called outside a forward pass of "
                "the model, or with other tokens: call the model itself while it is offloaded"
            )
        if hidden.device.type != "cpu":
            # Bringing the choice to the host waits for all kernels before it: that is computing.
            torch.accelerator.current_stream(hidden.device).synchronize()
        self._crossing.clear()
        began_s = time.perf_counter()
        own = weights  # what kernels weigh with
        if self._routing is not None:
            ids, weights = self._routing.choose(number, ids, weights)
            own = weights.to(own.dtype)
        chosen = ids.cpu().numpy()
        live = chosen if passes.all_live else chosen[passes.live]
        spare = self._routing is not None  # an id more, which is no expert
        uses = _count(live.reshape(-1), count + spare, self._moe.layers[number].name)[:count]
        self.routing_s += time.perf_counter() - began_s
        if not len(live):
            return torch.zeros_like(hidden)
        wanted = uses.nonzero()[0]
        keys = self._keys[number][wanted]
        began_deciding_s = time.perf_counter()
        gates = self._gates(live, weights, uses)[wanted] if self._weighs else None
        self._decisions.begin(passes.number, number, passes.phase, keys, uses[wanted], gates)
        logits, true = self._logits(number, len(chosen)), None
        if self._decisions.tells_rows:
            known = self._live(weights.detach().float().cpu().numpy())
            true = true_rows(live, known, count, half=self._routing is None)
            self._decisions.tell(true, logits)
        self.deciding_s += time.perf_counter() - began_deciding_s
        deferral = self._residence.deferral
        deferral.begin(passes.number, number)
        group: Grouping | None = None
        products: dict[int, Tensor] = {}
        timeline = self._timeline
        ahead = partial(self._look_ahead, number, hidden, live, weights, logits)
        for key, slot in self._residence.serve(keys.tolist(), ahead):
            if group is None:  # nothing has been given to the device yet
                if true is not None:
                    chosen, ids, own, uses = self._executed(true, own)
                group = self._group(hidden, chosen, ids, own, uses)
            expert = key - number * count
            start_s = time.perf_counter() if timeline is not None else 0.0
            with named(f"specmd L{number} E{expert}", hidden.device):
                if slot == LATER:
                    assert self._rows is not None
                    transfer, rows = self._residence.hosted[key], self._rows.of(expert)
                    deferral.put_off(transfer, experts, rows, expert, group)
                elif slot == ON_HOST:
                    products[expert] = self._on_host(experts, key, expert, group)
                else:
                    tensors = self._residence.tensors(key, slot)
                    products[expert] = weighted_product(experts, tensors, hidden, group, expert)
            if timeline is not None and slot != LATER:
                expert_name = timeline.key_name(key)
                timeline.span("compute", expert_name, start_s, time.perf_counter(), slot=slot)
        self.events += 1
        total = torch.zeros_like(hidden) if group is None else sum_in_order(hidden, products, group)
        if deferral.owes:
            with self._residence.on_host():
                self._crossing += deferral.add_to(total)
        if timeline is not None:
            timeline.span("compute", f"layer {number}", began_s, time.perf_counter())
        return total

    def _logits(self, number: int, tokens: int) -> npt.NDArray[np.float32] | None:
        """Logits of the tokens that count, (T, E), as a trace has them; None unless needed."""
        if not self._decisions.reads_logits:
            return None
        if self._routing is not None:
            given = self._routing.logits(number)
            if given is None and self._decisions.wants_logits:
                raise SpecmdError(
                    "a policy needs router logits, which the routing given to offload has not"
                )
            return given
        heard, self._heard = self._heard, None
        if heard is None or heard[0] != number or len(heard[1]) != tokens:
            raise SpecmdError(
                f"{self._moe.layers[number].name}: the gate was not run for the tokens that its "
                "experts are called with: policies that need router logits cannot be used here"
            )
        found: Any = self._live(halved(heard[1])).astype(np.float32)
        return found  # type: ignore[no-any-return]

    def _gates(
        self, live: npt.NDArray[np.int64], weights: Tensor, uses: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """Return the weight of each expert, (experts,), as a trace has it: summed in order."""
        known = host_weights(weights, half=self._routing is None)
        flat = self._live(known).reshape(-1).astype(np.float64)
        summed: Any = np.bincount(live.reshape(-1), weights=flat, minlength=len(uses))
        return summed  # type: ignore[no-any-return]

    def _executed(
        self, true: TrueRows, own: Tensor
    ) -> tuple[npt.NDArray[np.int64], Tensor, Tensor, npt.NDArray[np.int64]]:
        """Return what is executed: experts (T, K), here and on the device, weights, and uses."""
        count, live = self._moe.num_experts, None if self._passes.all_live else self._passes.live
        ids, weights = self._decisions.executed()
        weights32 = executed_weights(true, ids, weights)
        ids = np.where(ids < 0, count, ids)
        uses = np.bincount(ids.reshape(-1), minlength=count + 1)[:count]
        chosen: Any = spread(ids, live, count)
        on_device = torch.from_numpy(chosen).to(own.device)
        weighed: Any = spread(weights32, live, 0)
        return chosen, on_device, torch.from_numpy(weighed).to(own.device, own.dtype), uses

    def _group(
        self,
        hidden: Tensor,
        chosen: npt.NDArray[np.int64],
        ids: Tensor,
        weights: Tensor,
        uses: npt.NDArray[np.int64],
    ) -> Grouping:
        """Group the tokens by expert; bring those of experts on the host there."""
        live = None if self._passes.all_live else self._passes.live
        hosted = [key % self._moe.num_experts for key in self._residence.hosted]
        if hosted:
            with self._residence.on_host():
                self._rows = HostRows(hidden, chosen, live, hosted)
        mask = None if live is None else torch.from_numpy(live)
        return Grouping(ids, weights, uses.tolist(), mask)

    def _on_host(self, experts: nn.Module, key: int, expert: int, group: Grouping) -> Tensor:
        """Compute one expert in host memory; (t, H) on the device."""
        assert self._rows is not None
        with self._residence.on_host():
            self._residence.deferral.wait()
            weights = self._residence.tensors(key, ON_HOST)
            product, crossing = self._rows.product(experts, weights, expert, group)
        self._crossing.append(crossing)
        return product

    def _look_ahead(
        self,
        number: int,
        hidden: Tensor,
        live: npt.NDArray[np.int64],
        weights: Tensor,
        logits: npt.NDArray[np.float32] | None,
    ) -> None:
        """Ask the prefetcher, and note the routing."""
        passes, decisions = self._passes, self._decisions
        began_s = time.perf_counter()
        scores = known = self._scores(number, hidden)
        if "logits" in decisions.prefetch.needs and logits is not None:
            known = known | {"logits": logits}
        if "choices" in decisions.prefetch.needs:
            ids = np.sort(np.where(live < self._moe.num_experts, live, -1))
            known = known | {"ids": ids, "request": self._live(passes.request)}
        decisions.look_ahead(len(live), **known)
        if self._log is not None:
            half = self._routing is None
            self._log.add(number, passes, live, weights, scores, logits=logits, half=half)
        self.deciding_s += time.perf_counter() - began_s

    def _scores(self, number: int, hidden: Tensor) -> dict[str, npt.NDArray[Any]]:
        """Return the scores that the prefetcher needs, by field of `Outlook`, as a trace has them.

        Of the tokens that count, (T, depth, experts), float32 of float16 values.
        """
        depth, needs = self._decisions.depth, self._decisions.prefetch.needs
        wanted = [name for name in ("lookahead", "renormalised") if name in needs]
        if self._routing is not None:
            found: dict[str, npt.NDArray[Any]] = {}
            for name in wanted:
                scores = self._routing.scores(number, name)
                if scores is None or scores.shape[1] < depth:
                    raise SpecmdError(
                        f"{self._decisions.prefetch.spelled} needs {NEEDS[name].text}, {depth} "
                        "deep, which the routing given to offload does not have"
                    )
                found[name] = scores[:, :depth]
            return found
        if not wanted or not depth:
            return {}
        raw, renormalised = self._lookahead.scores(number, hidden, self._moe.num_experts)
        made = {"lookahead": raw, "renormalised": raw if renormalised is None else renormalised}
        return {name: self._live(halved(made[name])).astype(np.float32) for name in wanted}

    def restart(self, log: RoutingLog | None) -> None:
        """Forget times and events, and log into another log."""
        self._log = log
        self.routing_s = self.deciding_s = 0.0
        self.events = 0

    def _live(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return array if self._passes.all_live else array[self._passes.live]


class _WithoutGradient(torch.autograd.Function):
    """Stands where the experts' gradient would be: a pass is allowed, its backward is not."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, *_inputs: Tensor) -> Tensor:
        return total.view_as(total)

    @staticmethod
    def backward(ctx: Any, *_gradients: Tensor) -> Any:
        raise SpecmdError(
            "offloaded experts have no gradients: leave the offload block before training, and "
            "run under torch.no_grad() inside it"
        )


def _count(choices: npt.NDArray[np.int64], experts: int, name: str) -> npt.NDArray[np.int64]:
    """Return how often each expert was chosen, (experts,)."""
    try:
        uses = np.bincount(choices, minlength=experts)
    except ValueError:  # a negative number
        uses = np.zeros(0, np.int64)
    if len(uses) != experts:
        raise SpecmdError(
            f"{name}: the router chose an expert outside 0..{experts - 1}: expert-parallel "
            "models cannot be offloaded"
        )
    return uses
