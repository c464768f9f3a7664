"""What a run needs on its device: slots, staging, other weights, keys and values."""

from __future__ import annotations

from specmd.hardware.memory import beside_slots
from specmd.hardware.profile import HardwareProfile, load_profile
from specmd.hardware.shape import load_shape
from specmd.runs.options import STAGING_SLOTS, RunConfig
from specmd.runs.pools import pools_of
from specmd.runs.run import Memory
from specmd.trace import Trace
from specmd.trace.contexts import held_tokens


def memory(trace: Trace, config: RunConfig, training: Trace | None = None) -> Memory | None:
    """Count what a run needs on its device; None where the size of an expert is not known."""
    sizes = trace.header.layer_bytes
    if sizes is None:
        return None
    shape = load_shape(config.shape) if config.shape else None
    context = config.context or held_tokens(trace)
    beside = beside_slots(shape, max(sizes), STAGING_SLOTS, context)
    profile = load_profile(config.profile) if config.profile else None
    return Memory(
        slots_bytes=pools_of(trace.header, config, training=training).bytes(sizes),
        staging_bytes=beside.staging,
        weights_bytes=beside.weights,
        kv_bytes=beside.kv,
        context_tokens=context,
        device_bytes=int(profile.memory_bytes.value) if profile else None,
    )


def device_shortage(profile: HardwareProfile, slots: int, needs: Memory) -> str | None:
    """Say by how much a run outgrows its device, and how many slots would not; None if it fits."""
    there = profile.memory_bytes.value
    if needs.total_bytes <= there:
        return None
    parts = {
        "slots": needs.slots_bytes,
        "staging": needs.staging_bytes,
        "other weights": needs.weights_bytes,
        f"KV of {needs.context_tokens:,} tokens": needs.kv_bytes,
    }
    said = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in parts.items() if size is not None)
    room = there - needs.total_bytes + needs.slots_bytes
    fits = max(0, int(room * slots // max(1, needs.slots_bytes)))
    advice = f"at most {fits:,} slots fit" if fits else "not even one slot fits"
    return (
        f"does not fit: {needs.total_bytes / 1e9:.1f} GB on a {profile.name} of {there / 1e9:.1f} "
        f"GB ({said}): {advice}"
    )
