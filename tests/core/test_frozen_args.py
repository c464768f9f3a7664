"""Arguments that compiled code reads once: same values, same arrays, cached on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from specmd.core import specialise as kernel


class Inner(NamedTuple):
    small: Any  # (n,) uint8
    table: Any  # (n, m) float32
    ratio: float


class State(NamedTuple):
    total: Any  # (1,) int64
    inner: Inner
    fixed: Any  # (n,) read-only
    scale: int


def weigh(state: State, pair: tuple[int, float], by: int, more: Any) -> float:
    """Use every part of the state; change one."""
    state.total[0] += by
    found = state.inner.ratio + pair[0] + pair[1] + more[-1]
    for i in range(len(state.inner.small)):
        found += state.inner.small[i] * state.scale + state.fixed[i] + state.inner.table[i, 1]
    return found + state.total[0]


def make() -> State:
    fixed = np.arange(3, dtype=np.uint16)
    fixed.setflags(write=False)
    table = np.arange(6, dtype=np.float32).reshape(3, 2)
    inner = Inner(np.array([1, 2, 50], np.uint8), table, 0.25)
    return State(np.zeros(1, np.int64), inner, fixed, 3)


def test_held_arguments_are_those_given() -> None:
    held, plain = (make(), (5, 0.5)), (make(), (5, 0.5))
    call = kernel.specialise_frozen(weigh, {}, held)
    for by in (1, -4, 1 << 40):
        more = np.array([0.125, by])
        assert call(by, more) == weigh(*plain, by, more)
        for state, _ in (held, plain):
            state.inner.small[:] += 3  # what changes in place is seen
            state.inner.table[1, 1] = by
    assert held[0].total[0] == plain[0].total[0]


def test_two_holders_of_one_kernel_are_apart() -> None:
    states = make(), make()
    calls = [kernel.specialise_frozen(weigh, {}, (state, (0, 0.0))) for state in states]
    more = np.zeros(1)
    calls[0](7, more)
    calls[1](2, more)
    assert [int(state.total[0]) for state in states] == [7, 2]


def test_the_holder_keeps_its_arrays_alive() -> None:
    call = kernel.specialise_frozen(weigh, {}, (make(), (0, 0.0)))
    rubbish = [np.full(3, 77, np.uint8) for _ in range(1000)]
    assert call(0, np.zeros(1)) == weigh(make(), (0, 0.0), 0, np.zeros(1))
    assert len(rubbish) == 1000


def test_types_have_files_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECMD_CACHE_DIR", str(tmp_path))
    kernel._specialise_frozen.cache_clear()
    other = make()
    other = other._replace(inner=other.inner._replace(small=other.inner.small.astype(np.uint32)))
    for state in (make(), other):
        assert kernel.specialise_frozen(weigh, {}, (state, (0, 0.0)))(0, np.zeros(1)) > 0
    kernel._specialise_frozen.cache_clear()
    for name in ("call_held", "keep"):
        assert len({file.parent for file in tmp_path.rglob(f"frozen_args.{name}*.nbc")}) == 2
