"""The identity of a measured run: a hash of what was run, how, and on what."""

from __future__ import annotations

from pathlib import Path

import torch

from specmd.hardware import machine
from specmd.measurement.settings import LiveSettings
from specmd.measurement.workload import Workload
from specmd.runs.identity import SPELLED, by_content, code, digest
from specmd.runs.options import RunConfig
from specmd.runs.run import SCHEMA
from specmd.trace import Trace


def measured_id(
    workload: Workload,
    config: RunConfig,
    settings: LiveSettings,
    *,
    training: Trace | None,
    bounds: bool,
) -> str:
    """Hash the inputs of a measured run into 24 hexadecimal digits.

    The machine counts (processor, cores, accelerator), the folder of a checkpoint only by name.
    """
    accelerator = torch.accelerator.is_available()
    named = settings.model_copy(
        update={
            "checkpoint": settings.checkpoint and Path(settings.checkpoint).name,
            "scratch": settings.scratch and "disk",
        }
    )
    return digest(
        {
            "schema": SCHEMA,
            "workload": {"name": workload.name, **workload.facts},
            "config": config.model_dump(mode="json", exclude=SPELLED) | by_content(config),
            "settings": named.model_dump(mode="json"),
            "training": training.digest if training else None,
            "bounds": bounds,
            "code": code(config, bounds=bounds, kind="measured"),
            "machine": [machine.processor(), machine.cores()],
            "torch": torch.__version__,
            "accelerator": str(torch.accelerator.current_accelerator()) if accelerator else None,
        }
    )
