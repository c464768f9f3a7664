"""How fast a policy decides, beside LRU: a ratio of one process, so that machines hardly matter.

The same made-up trace is replayed with each, without a clock, in processor seconds of one thread,
so that a busy machine hardly matters; the best of a few rounds counts. LRU is compiled whatever
form the other has: the ratio says what being interpreted costs.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any, NamedTuple

from specmd.policy.registry import Choice
from specmd.runs.options import RunConfig
from specmd.simulation.walk import Walk
from specmd.trace import Trace, slice_tokens, synthetic

ROUNDS = 3
FEW_TOKENS = 60  # of the trace, for a policy that is interpreted
FULL_SPEED = 0.2
"""A compiled policy that is slower than so much of LRU's rate is told why."""


class Speed(NamedTuple):
    """Accesses a second of a policy and of LRU, and what there is to do about it."""

    per_s: float
    lru_per_s: float
    advice: str

    @property
    def ratio(self) -> float:
        """The policy's rate over LRU's."""
        return self.per_s / self.lru_per_s

    def __str__(self) -> str:
        """Say it in a line."""
        said = f"{self.per_s / 1e6:.3g} M accesses/s, {self.ratio:.3g} x LRU in this process"
        return f"{said}: {self.advice}" if self.advice else said


def speed(choice: Choice) -> Speed | None:
    """Measure an eviction policy, or a prefetcher before LRU; None for what decides by the run."""
    if choice.entry.axis not in ("evict", "prefetch") or choice.entry.name == "none":
        return None
    trace = bench_trace() if choice.compiled else slice_tokens(bench_trace(), 0, FEW_TOKENS)
    options: dict[str, Any] = {"evict": "lru", choice.entry.axis: choice.spelled}
    training = bench_trace(seed=4) if "training" in choice.needs else None
    beside, own = rate(bench_trace(), {"evict": "lru"}), rate(trace, options, training=training)
    advice = ""
    if not choice.compiled:
        advice = (
            "it is interpreted; a NamedTuple of arrays declared compiled=True runs at native speed "
            "(docs/plugins.md, 'Compiled to native speed')"
        )
    elif own < FULL_SPEED * beside and not hasattr(choice.cls, "victim"):
        advice = "`rank` asks every resident key; keep an order instead (make_lists, make_heap)"
    return Speed(own, beside, advice)


def rate(
    trace: Trace, options: dict[str, Any], *, slots: int = 0, training: Trace | None = None
) -> float:
    """Return accesses a second of a replay, the best of some rounds; compiling does not count.

    Args:
        trace: what is replayed.
        options: policies and options, as of a run.
        slots: of the cache; 0: a quarter of all keys.
        training: the trace that policies fitted beforehand are fitted on.

    """
    header = trace.header
    slots = slots or header.num_layers * header.num_experts // 4
    config = RunConfig(capacity=str(slots), capacity_slots=slots, **options)
    best_s = float("inf")
    for _ in range(ROUNDS + 1):  # the first compiles
        walk = Walk(trace, config, training, None, "cache", False, None)
        began = time.thread_time()
        walk.run()
        best_s = min(best_s, time.thread_time() - began)
    return walk.events.accesses / best_s


@cache
def bench_trace(seed: int = 3) -> Trace:
    """Make the trace of a seed: 16 layers of 64 experts, top-8, skewed and sticky as real ones."""
    return synthetic(
        num_layers=16,
        num_experts=64,
        top_k=8,
        num_requests=4,
        prompt_length=32,
        decode_length=500,
        lookahead_depth=1,
        seed=seed,
    )
