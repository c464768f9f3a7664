"""What a run says of its inputs, whether or not it came to numbers.

The trace it ran on, the hardware it stands for, the choices of the evaluation contract it was made
under, and, for a run that could not be made, why. "Skipped: needs lookahead scores" is a row in
every table, never a silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from specmd.hardware.profile import HardwareProfile, load_profile
from specmd.hardware.shape import load_shape
from specmd.policy.needs import offered, unmet
from specmd.policy.registry import AXES, choose
from specmd.runs.identity import provenance, run_id
from specmd.runs.options import STAGING_SLOTS, RunConfig
from specmd.runs.run import Run, Status, TraceFacts
from specmd.trace import Trace


def unmet_need(trace: Trace, config: RunConfig, training: Trace | None) -> str:
    """Say which declared need of which policy is not met, or nothing."""
    offer = offered(trace, training, timed=config.profile is not None)
    reasons = (unmet(choose(axis, getattr(config, axis)), offer) for axis in AXES)
    return next(filter(None, reasons), "")


def without_numbers(
    trace: Trace,
    config: RunConfig,
    status: Status,
    reason: str,
    *,
    name: str = "",
    training: Trace | None = None,
    bounds: bool = True,
    argv: Sequence[str] | None = None,
) -> Run:
    """Record a run that was skipped or that failed, and why."""
    profile = load_profile(config.profile) if config.profile else None
    return Run(
        id=run_id(trace, config, bounds=bounds, training=training),
        label=label(profile),
        status=status,
        reason=reason,
        config=recorded_config(config, profile),
        trace=trace_facts(trace, trace, name, trace.num_steps),
        contract=contract(config),
        provenance=provenance(config, trace.digest, argv),
    )


def contract(config: RunConfig) -> dict[str, Any]:
    """Spell out the choices of the evaluation contract a run was made under."""
    tier = {}
    if config.host_slots is not None:
        tier = {"host_slots": config.host_slots, "host_evict": config.host_evict}
    return {
        "clock": "access" if config.sequential else "event",
        "scope": config.scope,
        "admission": config.admission,
        "reset": config.reset,
        "batch": config.batch or "as recorded",
        "prefill_chunk": config.prefill_chunk or "as recorded",
        "mixed": config.mixed,
        "start": "cold" if config.warmup == 0 else f"after {config.warmup} steps of warm-up",
        "tie_rule": "on equal rank the larger key leaves first",
        "order_in_event": "hits, then misses, each by ascending key",
        "staging_slots": STAGING_SLOTS,
        **tier,
        "prefetch": "useful = prefetch_hits, late = late_hits",
        "seed": config.seed,
    }


def label(profile: HardwareProfile | None) -> str:
    """Caption simulated numbers."""
    return f"simulated ({profile.name})" if profile else "simulated (no clock)"


def recorded_config(config: RunConfig, profile: HardwareProfile | None) -> RunConfig:
    """Return the configuration as it is recorded: files by name, not by where they lie."""
    shape = load_shape(config.shape).name if config.shape else None
    policies = {axis: choose(axis, getattr(config, axis)).recorded for axis in AXES}
    named = {"profile": profile.name if profile else None, "shape": shape}
    return config.model_copy(update=policies | named)


def trace_facts(whole: Trace, trace: Trace, name: str, first_step: int) -> TraceFacts:
    """Describe a trace: `whole` as given, `trace` as it is run, counted from `first_step` on."""
    header = trace.header
    counted_from = int(trace.step_starts[first_step])
    return TraceFacts(
        name=name or header.model,
        digest=whole.digest,
        model=header.model,
        kind=header.kind,
        num_layers=header.num_layers,
        num_experts=header.num_experts,
        top_k=header.top_k,
        expert_bytes=header.expert_bytes,
        tokens=trace.num_tokens,
        steps=trace.num_steps,
        requests=trace.num_requests,
        counted_tokens=trace.num_tokens - counted_from,
        counted_steps=trace.num_steps - first_step,
        complete=header.complete,
        license=header.license,
        source=header.source,
    )
