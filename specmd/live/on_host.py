"""Experts computed where they are, in host memory, while the link carries others.

Activations cross in place of weights: the rows of an expert's tokens to the host, before any kernel
of the layer is issued, and its product back. The weights are read where the store, or the tier in
front of a disk, has them. On the processor's own link nothing crosses, and the kernel that computes
is the one that would compute out of a slot, bit for bit; on an accelerator the host's kernels round
in their own way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from specmd.live.experts import Grouping, matrix_product, normed, weigh


class HostRows:
    """The tokens of one layer's pass that experts on the host are applied to.

    Args:
        hidden: (T, H) on the device.
        chosen: (T, K) executed experts, on the host.
        live: (T,) which tokens count, or None for all.
        experts: those that are computed on the host.

    """

    def __init__(
        self,
        hidden: Tensor,
        chosen: npt.NDArray[np.int64],
        live: npt.NDArray[np.bool_] | None,
        experts: list[int],
    ) -> None:
        self._hidden = hidden
        if live is not None:
            chosen = np.where(live[:, None], chosen, -1)
        rows = [np.flatnonzero(chosen.reshape(-1) == each) // chosen.shape[1] for each in experts]
        index = torch.from_numpy(np.concatenate(rows)).to(hidden.device)
        parts = torch.split(hidden[index].cpu(), [len(each) for each in rows])
        self._rows = dict(zip(experts, parts, strict=True))

    def of(self, expert: int) -> Tensor:
        """(t, H) of an expert's tokens, in host memory."""
        return self._rows[expert]

    def product(
        self, experts: nn.Module, weights: dict[str, Tensor], expert: int, group: Grouping
    ) -> tuple[Tensor, Tensor]:
        """Compute an expert on the host.

        Returns:
            Its weighted product on the device, (t, H), and what is being copied there: to be kept
            until the device has it.

        """
        found = matrix_product(experts, weights, self._rows[expert])
        there: Any = found.to(self._hidden.device, non_blocking=True)
        return weigh(normed(experts, there), self._hidden, group, expert), found
