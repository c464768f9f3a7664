"""What a row was measured on, as profile, shape and kind of engine: shipped, or in its own words.

A row's own link rate replaces the profile's, because machines with the same card differ in what is
behind it. Where missed experts come from an SSD into the memory that computes, the SSD is the link.
"""

from __future__ import annotations

from typing import Any

from specmd.board.rows import Row
from specmd.errors import SpecmdError
from specmd.hardware.engines import Engine, load_engine
from specmd.hardware.profile import Figure, HardwareProfile, Kind, load_profile
from specmd.hardware.shape import ModelShape, load_shape

ENGINES = {"eager": "eager", "grouped": "grouped", "graph": "graph", "cpu": "grouped"}
"""Kinds of engines by how they run experts; one on a CPU launches what a grouped one does."""


def stated_profile(row: Row) -> HardwareProfile:
    """Return the shipped profile of a row's device, with the link that the row states."""
    if row.device is None:
        raise SpecmdError(f"no hardware profile of this machine is shipped ({row.machine})")
    profile = load_profile(row.device)
    link = profile.host_link
    changed: dict[str, Any] = {}
    if row.tier == "ssd":
        if profile.ssd is None:
            raise SpecmdError(f"experts come from an SSD, and profile {profile.name} has none")
        changed |= {"bytes_per_s": profile.ssd.bytes_per_s, "latency_s": profile.ssd.latency_s}
    if row.link_bytes_per_s is not None:
        changed["bytes_per_s"] = _figure(row)
    if changed:
        rate = changed.get("bytes_per_s", link.bytes_per_s)
        wires = link.theoretical_bytes_per_s
        changed["theoretical_bytes_per_s"] = wires if wires.value >= rate.value else rate
        link = link.model_copy(update={**changed, "type": "simulated"})
    flops = profile.flops_per_s
    if row.devices > 1:  # each device holds its part of every matrix
        flops = flops.model_copy(update={"value": flops.value * row.devices})
    return profile.model_copy(update={"host_link": link, "flops_per_s": flops})


def shape_of(row: Row) -> ModelShape:
    """Return the shape of a row's model, its dense weights in the precision of the row."""
    assert row.shape is not None
    shape = load_shape(row.shape)
    bits = (row.dense_bits or shape.dense_weight_bits) / row.devices
    return shape.model_copy(update={"dense_weight_bits": bits})


def engine_of(row: Row) -> Engine:
    """Return the kind of engine a row was measured with."""
    return load_engine(ENGINES[row.kernels])


def _figure(row: Row) -> Figure:
    assert row.link_bytes_per_s is not None
    value, source = row.link_bytes_per_s, f"{row.id}: {row.link_from}"
    if row.link_kind == "assumed":
        return Figure(value=value, unit="B/s", kind="assumption", source=f"assumption: {source}")
    kind: Kind = "measured" if row.link_kind == "measured" else "datasheet"
    return Figure(value=value, unit="B/s", kind=kind, source=source, url=row.source)
