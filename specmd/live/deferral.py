"""Experts put off to the next layer: a thread computes them while the device goes on.

The thread is the host's lane. What a layer puts off is queued behind the experts that its own end
waits for; the next layer's experts on the host wait until the thread is done, as one machine
computes them one after the other, and so does that layer's end, which adds what was put off to its
own sum: own experts first, then those, ascending.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from specmd.live.experts import Grouping, matrix_product, normed
from specmd.live.transfer import Transfer
from specmd.live.transfers import Mover


class PutOff(NamedTuple):
    """One expert that was put off."""

    product: Future[Tensor]  # (t, H) in host memory, not weighed yet
    experts: nn.Module  # of its own layer
    tokens: Tensor  # (t,) on the device
    weights: Tensor  # (t, 1) router weights of its own layer


class Deferral:
    """What two layers that follow each other put off.

    Args:
        mover: has the experts in host memory.

    """

    def __init__(self, mover: Mover) -> None:
        self._mover = mover
        self._lane: ThreadPoolExecutor | None = None
        self._moment = (-1, -1)  # pass and layer
        self._due: dict[int, PutOff] = {}  # by expert; of the layer before
        self._new: dict[int, PutOff] = {}  # of the present layer

    def begin(self, number: int, layer: int) -> None:
        """Begin a layer of a pass; what was put off before any but this is dropped."""
        if self._moment != (number, layer - 1):
            self.drop()
        self._moment = number, layer
        self._due, self._new = self._new, {}

    def put_off(
        self, transfer: Transfer, experts: nn.Module, rows: Tensor, expert: int, group: Grouping
    ) -> None:
        """Queue an expert for its tokens' rows, (t, H) in host memory."""
        if self._lane is None:
            self._lane = ThreadPoolExecutor(1, thread_name_prefix="specmd-defer")
        product = self._lane.submit(self._compute, transfer, experts, rows)
        self._new[expert] = PutOff(product, experts, group.tokens(expert), group.weights(expert))

    def _compute(self, transfer: Transfer, experts: nn.Module, rows: Tensor) -> Tensor:
        mover = self._mover
        try:
            mover.wait_for_any([transfer])
            began_s = time.perf_counter()
            weights = mover.slots.layouts.of(transfer.key).views(mover.in_host(transfer))
            with torch.no_grad():
                product = matrix_product(experts, weights, rows)
            if mover.timeline is not None:
                name = f"{mover.timeline.key_name(transfer.key)} deferred"
                mover.timeline.span("host", name, began_s, time.perf_counter())
            return product
        finally:
            mover.let_go(transfer)

    @property
    def owes(self) -> bool:
        """Whether the present layer has something to add."""
        return bool(self._due)

    def wait(self) -> None:
        """Wait until the layer before has nothing left to compute."""
        wait(each.product for each in self._due.values())

    def add_to(self, total: Tensor) -> list[Tensor]:
        """Add what is due to a layer's sum (T, H).

        Returns what is being copied to the device: to be kept until the device has it. Raises what
        went wrong in computing.
        """
        crossing = []
        for expert in sorted(self._due):
            product, experts, tokens, weights = self._due[expert]
            crossing.append(product.result())
            there: Any = crossing[-1].to(total.device, non_blocking=True)
            weighed = normed(experts, there) * weights
            total.index_add_(0, tokens, weighed.to(total.dtype))
        self._due = {}
        return crossing

    def drop(self) -> None:
        """Forget what no layer will add; nothing of it is computed any more afterwards."""
        wait(each.product for each in (*self._due.values(), *self._new.values()))
        self._due, self._new = {}, {}

    def close(self) -> None:
        """End the thread; safe to call twice."""
        if self._lane is not None:
            self._lane.shutdown(wait=True, cancel_futures=True)
            self._lane = None
