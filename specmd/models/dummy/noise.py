"""Weights that mean nothing: random, distinct, harmless, and as fast to make as memory is.

What a cache moves and what a kernel multiplies takes the same time whatever it says, within three
limits: no value may be NaN or infinite, none may vanish (kernels and power draw know zeros), and no
two experts may be alike, or a wrong one would go unnoticed. Drawing gigabytes of normal numbers
takes minutes; so a few million are drawn once and laid out again and again from other beginnings.
Their number is a prime, so that no row of a matrix repeats another.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

BLOCK = 4_194_301  # the largest prime below 2 ** 22
STRIDE = 104_729  # a prime, too: beginnings of consecutive fills are far apart and all different
DEVIATION = 0.02  # as models are initialised: with it, bf16 activations stay small in any depth


class Noise:
    """Normal numbers of mean 0 and deviation 0.02, the same for the same seed."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self._twice = _draw(seed, dtype)
        self._fills = 0

    @torch.no_grad()
    def fill(self, target: Tensor) -> None:
        """Overwrite a contiguous tensor; no two fills (of the first four million) are alike."""
        begin = self._fills * STRIDE % BLOCK
        self._fills += 1
        window = self._twice[begin : begin + BLOCK]
        flat = target.view(-1)
        for start in range(0, len(flat), BLOCK):
            part = flat[start : start + BLOCK]
            part.copy_(window[: len(part)])


@lru_cache(maxsize=1)  # a model, its context and its store are filled from the same
def _draw(seed: int, dtype: torch.dtype) -> Tensor:
    """Draw the block, and lay it out twice."""
    generator = torch.Generator().manual_seed(seed)
    block = torch.randn(BLOCK, generator=generator).mul_(DEVIATION).to(dtype)
    return torch.cat([block, block])
