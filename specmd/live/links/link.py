"""What the mover asks of a link: two streams, marks on them, and copies.

A device has queues of work, *streams*, that run side by side; inside one, work is done in order.
The compute stream runs the kernels, the copy stream brings experts into slots. A *mark* is an event
recorded on a stream; a stream told to wait for it does nothing until all work before the mark is
done. Whatever is not ordered by a stream or a mark may happen in any order: every rule of a correct
expert cache is one of

* a kernel reads a slot after the mark that its copy left behind (`ready`);
* a copy into a slot starts after the mark that the last kernel reading it left (`last use`);
* a pinned staging buffer is refilled after the mark that the copy out of it left.

Two links keep to this interface: the processor's own memory (`specmd.live.links.host`) and any
accelerator PyTorch knows (`specmd.live.links.accelerator`). tests/races runs the second on a device
that does its work late, in every order that streams allow.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

COPY, COMPUTE = 0, 1
Mark = Any


class Link(Protocol):
    """The primitives; only `synchronise`, and `copy` out of pageable memory, block the caller."""

    name: str
    device: torch.device
    needs_pinned: bool  # copies out of pageable memory are slower

    def record(self, stream: int) -> Mark:
        """Leave a mark on COPY or COMPUTE, behind all work issued to it so far."""
        ...

    def order(self, stream: int, mark: Mark) -> None:
        """Let all later work on a stream wait for a mark."""
        ...

    def reached(self, mark: Mark) -> bool:
        """Whether all work before a mark is done."""
        ...

    def synchronise(self, mark: Mark, timeout_s: float) -> None:
        """Block until a mark is reached; SpecmdError after `timeout_s`."""
        ...

    def tick(self, stream: int) -> Mark | None:
        """Leave a mark that notes the time it is reached; None if the device keeps no time."""
        ...

    def elapsed_s(self, before: Mark, after: Mark) -> float:
        """Seconds between two ticks that have both been reached."""
        ...

    def copy(self, slot: int, source: Tensor, start: int, stop: int, pinned: bool) -> None:
        """Copy `source` into bytes start..stop of a slot, on the copy stream.

        A pinned source must stay as it is until the copy is done; a pageable one may be changed as
        soon as the call returns.
        """
        ...

    def blank(self, slot: int) -> None:
        """Overwrite a slot with the canary, on the copy stream."""
        ...

    def attach(self) -> None:
        """Make the calling thread ready to use the link."""
        ...

    def close(self) -> None:
        """Let go of the memory; everything issued is done by now, nothing is copied any more."""
        ...
