"""Recorded rows and offloaded tokens are the model's own, however it decodes."""

from __future__ import annotations

import os

import pytest
from random_decoding import check, draw

COUNT = int(os.environ.get("SPECMD_RANDOM_CASES", "40"))


@pytest.mark.parametrize("seed", range(COUNT))
def test_a_random_case(seed: int) -> None:
    case = draw(seed)
    print(case)
    check(case)
