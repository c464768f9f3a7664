"""Runs whose numbers are made up, for tests of tables and figures."""

from __future__ import annotations

import hashlib

from specmd.runs.options import RunConfig
from specmd.runs.run import Bound, Bounds, Regime, Run, TraceFacts


def make_run(
    evict="lru",
    slots=51,
    misses=500,
    profile=None,
    status="ok",
    reason="",
    bounds=True,
    gap=5,
    **config,
):
    """A run of 1,000 accesses whose numbers hang together."""
    asked = RunConfig(
        evict=evict, capacity=str(slots), capacity_slots=slots, profile=profile, **config
    )
    metrics = {
        "accesses": 1000,
        "hits": 1000 - misses,
        "misses": misses,
        "hit_rate": 1 - misses / 1000,
        "collision_rate": misses / 4000,
        "tpot_s": None,
    }
    if profile:
        parts = {"compute": 0.002, "demand_stall": misses * 1e-5, "overhead": 0.0004}
        metrics |= {f"tpot_{part}_s": seconds for part, seconds in parts.items()}
        metrics |= {"tpot_s": sum(parts.values()), "stall_share": 0.5, "over_roofline": 1.25}

    def bound(missed):
        return Bound(misses=missed, hit_rate=1 - missed / 1000, tpot_s=0.0024 if profile else None)

    best = max(10, 400 - slots)
    ahead = config.get("prefetch", "none") != "none"
    return Run(
        id=hashlib.blake2b(asked.model_dump_json().encode(), digest_size=8).hexdigest(),
        status=status,
        reason=reason,
        config=asked,
        trace=TraceFacts(
            name="made_up",
            digest="d" * 32,
            model="synthetic",
            kind="synthetic",
            num_layers=16,
            num_experts=64,
            top_k=8,
            expert_bytes=12_582_912,
            tokens=100,
            steps=100,
            requests=1,
            counted_tokens=100,
            counted_steps=100,
            complete=True,
        ),
        metrics=metrics if status == "ok" else {},
        regime=Regime(
            layer_capacity=slots / 16,
            r_p50=2.5,
            r_p95=2.5,
            working_set_mean=128,
            working_set_p50=128,
            working_set_p95=128,
            capacity_over_working_set=slots / 128,
            keys_used=1024,
            keys_total=1024,
        ),
        bounds=Bounds(
            belady=bound(best),
            belady_bypass=bound(best - gap),
            compulsory=bound(5),
            all_resident=bound(0),
            no_cache=bound(1000),
            roofline_s=0.1 if profile else None,
            regret_misses=None if ahead else misses - best,
            regret_share=None if ahead else misses / best - 1,
            forced_gap=None if ahead else misses - best,
            bypass_gap=gap,
        )
        if bounds and status == "ok"
        else None,
        warnings=["made-up numbers"],
    )
