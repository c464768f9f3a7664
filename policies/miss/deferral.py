"""Deferral: the host computes a token's least experts meanwhile, and the next layer adds them.

H. Chen et al., "KTransformers: unleashing the full potential of CPU/GPU hybrid inference for MoE
models", SOSP 2025, doi:10.1145/3731569.3764843, "Expert Deferral"; the rule as in their kt-kernel,
`select_deferred_experts`: of each token's k experts the heaviest k - `deferred` are computed at
once, and so is for all whatever is among those of any token; the rest is put off. The last layer
puts nothing off. The default is what its README uses (2; 1 to 4 recommended; github.com/kvcache-ai/
ktransformers, read 2026-11-26). What is not put off is computed on the host, too.

*Inferred*: only decode is deferred, which is what the gain is reported for, and a prefill's misses
are fetched, as theirs are past `--kt-gpu-prefill-token-threshold`: with `--evict static` the hot
set is theirs, with another policy what prefills brought. A token's heaviest expert always stays.
"""

from __future__ import annotations

from typing import NamedTuple

from specmd.policy import (
    DEFER,
    FETCH,
    HOST,
    NO_EXPERT,
    PREFILL,
    Core,
    Count,
    Event,
    Rows,
    World,
    needs_it,
    pairs,
    policy,
)


@policy(
    "deferral",
    axis="miss",
    source="KTransformers, doi:10.1145/3731569.3764843",
    needs=["weights"],
    compiled=True,
    lossy=True,
)
class Deferral(NamedTuple):
    """How many of a token's experts are computed at once."""

    at_once: int

    @classmethod
    def create(cls, world: World, *, deferred: Count = 2) -> Deferral:
        """Put off at most `deferred` experts of each token."""
        return cls(max(1, world.top_k - deferred))

    def answer(self, key: int, event: Event, rows: Rows, core: Core) -> int:
        """Put off what is among the heaviest of no token that needs it."""
        if event.phase == PREFILL:
            return FETCH
        expert = key - event.layer * event.num_experts
        for pair in range(pairs(rows)):
            if needs_it(rows, pair, expert) and rank_of(rows, pair) < self.at_once:
                return HOST
        return DEFER


def rank_of(rows: Rows, pair: int) -> int:
    """Count the experts that a token weighs more; of equals the first is the heavier."""
    first, rank = pair // rows.top_k * rows.top_k, 0
    for other in range(first, first + rows.top_k):
        its, mine = rows.weights[other], rows.weights[pair]
        if rows.ids[other] != NO_EXPERT and (its > mine or (its == mine and other < pair)):
            rank += 1
    return rank
