"""From measured figures to a hardware profile, and from a profile to its file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

import specmd
from specmd.calibration.link import LinkFigures
from specmd.calibration.losses import Losses
from specmd.hardware import machine
from specmd.hardware.profile import HardwareProfile

_DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}

_LOSSES = {
    "resume_s": "with no expert resident: what its simulation leaves, a layer that waited",
    "fetch_s": "with no expert resident: what its simulation leaves, a copy",
    "transfer_s": "with half of the experts resident: what its simulation leaves, a prefetch",
    "predict_s": "with a prefetcher and nothing to fetch: what its simulation leaves, a layer",
}


@dataclass(frozen=True)
class MeasuredFigures:
    """What was measured, SI units; names as in a profile."""

    memory_bytes_per_s: float
    flops_per_s: float
    launch_s: float
    expert_s: float
    layer_s: float
    step_s: float
    losses: Losses
    link: LinkFigures


@dataclass(frozen=True)
class Circumstances:
    """Under which it was measured: device, torch threads, type of the weights, model, chunks."""

    name: str
    device: torch.device
    threads: int
    dtype: torch.dtype
    model: str
    chunk_bytes: int


def make_profile(measured: MeasuredFigures, about: Circumstances) -> HardwareProfile:
    """Build a calibrated profile; each figure says how it was measured."""
    device, title = _device(about)
    link = measured.link
    where = f"on {title}, {about.threads} torch threads, torch {torch.__version__}"

    def figure(value: float, unit: str, how: str, kind: str = "measured") -> dict[str, Any]:
        return {"value": value, "unit": unit, "kind": kind, "source": f"{how}, {where}"}

    sizes = ", ".join(f"{size:,}" for size in sorted({size for size, _, _ in link.times}))
    fit = f"fit over transfers of {sizes} bytes (median error {link.misfit:.1%})"
    model = f"{about.model} with all experts resident"
    kind = str(about.dtype).removeprefix("torch.")
    return HardwareProfile.model_validate(
        {
            "schema": 1,
            "name": about.name,
            "title": title,
            "vendor": "this machine",
            "calibrated": True,
            "notes": f"Calibrated by specmd {specmd.__version__} with {about.model} in {kind}: "
            "rates of arithmetic are those of its experts, costs of software those of its stack.",
            "flops_dtype": _DTYPES.get(kind, "fp32"),
            "memory_bytes": figure(_memory(about.device), "B", "as the system says", "derived"),
            "memory_bytes_per_s": figure(
                measured.memory_bytes_per_s, "B/s", "matrix-vector products over 256 MB"
            ),
            "flops_per_s": figure(
                measured.flops_per_s, "flop/s", "slope of an expert's time from 1 to 512 tokens"
            ),
            "launch_s": figure(measured.launch_s, "s", "adding to 8 numbers"),
            "host_memory_bytes_per_s": figure(
                _host_rate(measured, about), "B/s", "as the link or device memory, the faster"
            ),
            "host_link": {
                "type": _link_type(about.device, device),
                **_pcie(device),
                "bytes_per_s": figure(link.bytes_per_s, "B/s", fit),
                "theoretical_bytes_per_s": figure(
                    _wires(device, link.bytes_per_s),
                    "B/s",
                    "PCIe generation and width, or the measured rate where there are no wires",
                    "derived",
                ),
                "latency_s": figure(link.latency_s, "s", fit),
                "wake_s": figure(link.wake_s, "s", f"{fit}, first transfer after a pause"),
                "chunk_bytes": figure(about.chunk_bytes, "B", "as the run was set up", "design"),
            },
            "stack": {
                "expert_s": figure(
                    measured.expert_s, "s", "one expert for one token, less reading its weights"
                ),
                "layer_s": figure(
                    measured.layer_s, "s", f"what the roofline leaves of a step of {model}, a layer"
                ),
                "step_s": figure(measured.step_s, "s", f"between two passes of {model}"),
                **{
                    name: figure(getattr(measured.losses, name), "s", f"{about.model} {how}")
                    for name, how in _LOSSES.items()
                },
            },
        }
    )


def _device(about: Circumstances) -> tuple[dict[str, Any], str]:
    """Facts of the device by NVML, if it is NVIDIA's, and its name."""
    if about.device.type == "cpu":
        return {}, machine.processor()
    if about.device.type != "cuda":
        return {}, str(about.device)
    properties = torch.cuda.get_device_properties(about.device)
    return machine.gpu_of_uuid(str(getattr(properties, "uuid", ""))), properties.name


def _memory(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(machine.memory_bytes() or 1)


def _host_rate(measured: MeasuredFigures, about: Circumstances) -> float:
    """Host memory feeds the link at least as fast as it runs; on the processor it is the device."""
    if about.device.type == "cpu":
        return max(measured.memory_bytes_per_s, measured.link.bytes_per_s)
    return measured.link.bytes_per_s


def _link_type(device: torch.device, facts: dict[str, Any]) -> str:
    if device.type == "cpu":
        return "memory"
    return "pcie" if "pcie_max_generation" in facts else "simulated"


def _pcie(facts: dict[str, Any]) -> dict[str, Any]:
    if "pcie_max_generation" not in facts:
        return {}
    return {"generation": facts["pcie_max_generation"], "width": facts["pcie_max_width"]}


def _wires(facts: dict[str, Any], measured: float) -> float:
    """One-way rate of the wires, never below what was measured."""
    if "pcie_max_generation" not in facts:
        return measured
    per_lane = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}
    rate = per_lane.get(facts["pcie_max_generation"], 0.0) * float(facts["pcie_max_width"])
    return max(rate, measured)
