"""What a live cache did, in numbers: counts, bytes, stalls, bandwidth, memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from specmd.core import state as residency
from specmd.live.tiered import TieredMover
from specmd.runs.foresight import Foreseen

if TYPE_CHECKING:
    from specmd.live.core import Decisions
    from specmd.live.layer import Engine
    from specmd.live.links.throttle import Throttle
    from specmd.live.service import Residence
    from specmd.live.stores.store import ExpertStore
    from specmd.live.transfers import Mover


@dataclass(frozen=True)
class Report:
    """Measured numbers of one live cache, from its start to the moment of asking.

    Attributes:
        link: "cpu" or "accelerator".
        device: of the slots.
        throttle: (bytes per second, latency in seconds) the link was paced to, or None.
        decision_digest: hash of all decisions.
        events: MoE layers served.
        accesses: keys demanded; `hits + late_hits + misses`.
        hits: found in a slot.
        late_hits: found under way.
        misses: fetched on demand, or computed on the host.
        host_experts: those computed on the host.
        evictions: keys that left.
        prefetches_issued: copies begun ahead of their use, whatever became of them.
        prefetches_cancelled: those taken back before they started.
        moved_bytes: bytes the link carried.
        busy_s: time the link took for them.
        link_bytes_per_s: `moved_bytes / busy_s`; None before the first copy.
        unloaded_bytes_per_s: what it carried at the start, unpaced; None on the cpu link.
        disk_stall_s: time kernels waited for experts that were still on the disk.
        demand_stall_s: time kernels waited for demanded experts.
        late_stall_s: time kernels waited for prefetches that came late.
        cpu_expert_s: time the device waited for experts computed on the host.
        waits: layers in which the host found nothing there to compute, and waited.
        routing_s: time for bringing the router's choice to the host.
        deciding_s: time for scores, proposals and decisions.
        slot_bytes: device memory of slots, staging included.
        dense_bytes: memory of everything in the model that is not an expert.
        store_bytes: host memory of the experts.
        pinned_share: part of it that is pinned, 0 to 1.
        locked_bytes: host memory that the system keeps locked for that.
        pin_failure: why pinning stopped, "" if it did not.
        disk: how a disk is read past the system's cache; "" without a host tier.
        read_bytes: bytes of experts read from the disk.
        disk_busy_s: time that took.
        foreseen: how good the prefetcher's proposals were; None without one.
        peak_device_bytes: peak of the device's allocator; None on the cpu link.

    """

    link: str
    device: str
    throttle: tuple[float, float] | None
    decision_digest: str
    events: int
    accesses: int
    hits: int
    late_hits: int
    misses: int
    host_experts: int
    evictions: int
    prefetches_issued: int
    prefetches_cancelled: int
    moved_bytes: int
    busy_s: float
    link_bytes_per_s: float | None
    unloaded_bytes_per_s: float | None
    disk_stall_s: float
    demand_stall_s: float
    late_stall_s: float
    cpu_expert_s: float
    waits: int
    routing_s: float
    deciding_s: float
    slot_bytes: int
    dense_bytes: int
    store_bytes: int
    pinned_share: float
    locked_bytes: int
    pin_failure: str
    disk: str
    read_bytes: int
    disk_busy_s: float
    peak_device_bytes: int | None
    foreseen: Foreseen | None


def make_report(
    *,
    decisions: Decisions,
    mover: Mover,
    residence: Residence,
    engine: Engine,
    store: ExpertStore,
    link_name: str,
    throttle: Throttle | None,
    dense_bytes: int,
) -> Report:
    """Read the numbers off the parts of a live cache."""
    totals = decisions.kernel.counters.sum(axis=(0, 1)).tolist()
    hits = totals[residency.REUSE_HITS] + totals[residency.PREFETCH_HITS]
    misses = (
        totals[residency.COMPULSORY_MISSES]
        + totals[residency.COLLISION_MISSES]
        + totals[residency.CAPACITY_MISSES]
    )
    store_bytes = store.layouts.num_bytes
    tiered = mover if isinstance(mover, TieredMover) else None
    if tiered is not None:
        store_bytes = tiered.host.num_bytes
    return Report(
        link=link_name,
        device=str(mover.link.device),
        throttle=None if throttle is None else (throttle.bytes_per_s, throttle.latency_s),
        decision_digest=decisions.kernel.digest,
        events=engine.events,
        accesses=totals[residency.ACCESSES],
        hits=hits,
        late_hits=totals[residency.LATE_HITS],
        misses=misses,
        host_experts=totals[residency.HOST_EXPERTS],
        evictions=totals[residency.EVICTIONS],
        prefetches_issued=totals[residency.PREFETCH_ISSUED],
        prefetches_cancelled=totals[residency.PREFETCH_CANCELLED],
        moved_bytes=mover.moved_bytes,
        busy_s=mover.busy_s,
        link_bytes_per_s=mover.moved_bytes / mover.busy_s if mover.busy_s > 0 else None,
        unloaded_bytes_per_s=mover.unloaded_bytes_per_s,
        disk_stall_s=residence.stall_s["disk_stall"],
        demand_stall_s=residence.stall_s["demand_stall"],
        late_stall_s=residence.stall_s["late_prefetch_stall"],
        cpu_expert_s=residence.host_s,
        waits=residence.waits,
        routing_s=engine.routing_s,
        deciding_s=engine.deciding_s + residence.deciding_s,
        slot_bytes=residence.slots.num_bytes,
        dense_bytes=dense_bytes,
        store_bytes=store_bytes,
        pinned_share=store.pinned_bytes / store_bytes if store_bytes else 0.0,
        locked_bytes=store.locked_bytes,
        pin_failure=getattr(store, "pin_failure", ""),
        disk="" if tiered is None else tiered.host.files.way,
        read_bytes=0 if tiered is None else tiered.host.read_bytes,
        disk_busy_s=0.0 if tiered is None else tiered.disk_busy_s,
        peak_device_bytes=_peak_bytes(mover),
        foreseen=decisions.foresight.found if decisions.predicts else None,
    )


def _peak_bytes(mover: Mover) -> int | None:
    import torch

    if mover.link.device.type == "cpu":
        return None
    try:
        return int(torch.accelerator.max_memory_allocated(mover.link.device))
    except (AttributeError, RuntimeError):
        return None
