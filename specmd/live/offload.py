"""`with specmd.offload(model, ...) as cache:` a model whose experts live behind a cache.

Inside the block the model is used as always; its experts are in host memory, a fixed number of them
in slots on the device, and the policies of the simulator decide which. On the way out, by whatever
way, the model is what it was before.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any, Literal

import torch
from torch import nn

from specmd.errors import SpecmdError
from specmd.live.cache import Offload
from specmd.live.routing import Routing
from specmd.live.stores.store import ExpertStore
from specmd.runs.declared import takes_options
from specmd.runs.options import STAGING_SLOTS
from specmd.runs.timeline import Timeline
from specmd.trace import Trace

LinkName = Literal["auto", "cpu", "accelerator"]
Prefill = Literal["waves", "bypass", "double_buffer"]


@takes_options(live=True)
def offload(
    model: nn.Module,
    *,
    device: torch.device | str | None = None,
    link: LinkName = "auto",
    throttle: tuple[float, float] | None = None,
    deterministic: bool = False,
    training: Trace | None = None,
    checkpoint: str | PathLike[str] | None = None,
    pinned_budget: int | None = None,
    chunk_bytes: int = 4 << 20,
    staging_slots: int = STAGING_SLOTS,
    rates: Sequence[float] | None = None,
    log_routing: bool = False,
    prefill: Prefill = "waves",
    timeout_s: float = 60.0,
    compute_threads: int | None = None,
    interpreted: bool = False,
    canary: bool = False,
    store: ExpertStore | None = None,
    routing: Routing | None = None,
    timeline: Timeline | None = None,
    **options: Any,
) -> Offload:
    """Put a live expert cache between a transformers MoE model and its experts.

    Args:
        model: a transformers 5 MoE model, on the host.
        **options: spelled out here.
        device: where slots and dense weights go; by default the accelerator torch reports, if any.
        link: "cpu" keeps all in host memory, "accelerator" copies to `device`.
        throttle: (bytes per second, latency in seconds) that copies are paced to, or None.
        deterministic: complete all transfers before each event, as a replay does.
        training: the trace that policies fitted beforehand are fitted on.
        checkpoint: folder of safetensors to read experts from as they are needed, instead of
            holding them in host memory; see `specmd.models.meta.load_without_experts`.
        pinned_budget: bytes of host memory that may be pinned; None is no limit.
        chunk_bytes: a demand waits for at most one chunk of a prefetch.
        staging_slots: slots, beyond the capacity, for experts that only pass through.
        rates: seconds of an expert over the link, on the host for a token, there for each token
            more, and on the device, for policies that share misses out; measured by default.
        log_routing: keep the routing, see `Offload.trace`.
        prefill: what events wider than the cache do. "waves": they pass through it, as in the
            simulator; "bypass": they leave it alone; "double_buffer": they leave it alone, and the
            next layer's experts are copied while this one's compute (two layers more of slots).
        timeout_s: a wait longer than this is an error.
        compute_threads: torch threads while inside, on the cpu link; by default all cores but one,
            because with none to itself the copy thread hides almost nothing.
        interpreted: run the residency core as Python, to debug it or a policy.
        canary: overwrite a slot with NaN before another expert comes; for tests.
        store: holds the experts, in place of one made of the model's own.
        routing: chooses experts in place of the model's gates.
        timeline: takes down what happens when; costs time itself.

    Raises:
        SpecmdError: no MoE model, an unknown architecture, a policy that needs the future, an
            impossible capacity, no accelerator where one is asked for.

    """
    given = dict(locals())
    del given["model"], given["options"]
    if prefill not in ("waves", "bypass", "double_buffer"):
        raise SpecmdError(f"prefill '{prefill}': choose waves, bypass or double_buffer")
    if staging_slots < 1:
        raise SpecmdError(f"staging_slots {staging_slots}: give 1 or more")
    return Offload(model, {**options, **given})
