"""Before anything moves: on which device, with how many slots, in how many pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from specmd.core.event import World
from specmd.errors import SpecmdError
from specmd.models.facts import layer_bytes
from specmd.models.layout import Layouts
from specmd.models.low_bit import LowBit, low_bit_layouts
from specmd.models.moe import MoeModel
from specmd.policy.registry import Choice, choose
from specmd.policy.schedule import Schedule
from specmd.runs.pools import divide, parse_capacity
from specmd.runs.resolve import resolve_host
from specmd.trace.header import TraceHeader


def plan_world(
    moe: MoeModel,
    facts: dict[str, Any],
    options: dict[str, Any],
    room: Callable[[int | None], int],
) -> World:
    """Return what is fixed for a run: sizes, pools, slots, seed, popularity.

    Args:
        moe: the model's MoE layers.
        facts: the model's shape, `specmd.models.facts.model_facts`.
        options: the arguments of `offload`.
        room: says how many bytes are left for slots, see `specmd.live.room`.

    Raises:
        SpecmdError: an impossible capacity, a training trace of another model, or a model that
            does not say how many experts a token chooses.

    """
    layers, experts = len(moe.layers), moe.num_experts
    sizes = layer_bytes(moe)
    top_k = facts.get("top_k") or getattr(moe.layers[0].gate, "top_k", None)
    if not top_k:
        raise SpecmdError("the model does not say how many experts a token chooses")
    header = TraceHeader(num_layers=layers, num_experts=experts, top_k=int(top_k))
    how = {name: options[name] for name in ("scope", "allocate", "training")} | {"model": header}
    slots = parse_capacity(options["capacity"], layers, experts, sizes, room=room, **how)
    pools = divide(min(slots, layers * experts), layers, sizes, **how)
    popularity = rows = None
    training = options["training"]
    if training is not None:
        from specmd.simulation.loads import popularity as count_popularity
        from specmd.simulation.loads import require_same_model
        from specmd.trace.training import training_rows

        require_same_model(training, header)
        popularity, rows = count_popularity(training), training_rows(training)
    return World.of(header, *pools, seed=int(options["seed"]), popularity=popularity, training=rows)


def plan_host(moe: MoeModel, world: World, options: dict[str, Any]) -> tuple[World, Choice] | None:
    """Return pools and policy of the host tier, None where every expert is in host memory.

    Raises:
        SpecmdError: an impossible capacity, a policy that is told too little, no checkpoint to read
            from, or a way of prefilling that has no tier.

    """
    layers, experts, sizes = world.num_layers, world.num_experts, layer_bytes(moe)
    asked = options["host_capacity"], options["host_evict"]
    slots, evict = resolve_host(*asked, layers, experts, sizes)
    if slots is None:
        return None
    if options["checkpoint"] is None and not hasattr(options["store"], "extents"):
        raise SpecmdError(
            "host_capacity keeps some experts in host memory and reads the others from a disk: "
            "give offload(..., checkpoint=folder), `specmd run --experts disk`"
        )
    if options["prefill"] != "waves":
        raise SpecmdError(f"prefill {options['prefill']} has no host_capacity: leave one out")
    pools = divide(slots, layers, sizes)
    return World.of(world, *pools, seed=int(options["seed"])), choose("evict", evict)


def plan_schedule(spelled: str) -> Schedule:
    """Return the schedule; raises SpecmdError for one that decides by a simulated clock."""
    schedule = choose("schedule", spelled)
    if schedule.entry.simulated_only:
        raise SpecmdError(
            f"schedule {schedule.spelled} decides by a clock that a live cache has not: "
            "simulate it, or choose another"
        )
    made: Schedule = schedule.create()
    return made


def plan_copies(layouts: Layouts, miss: Choice, *, tiered: bool) -> tuple[LowBit, ...]:
    """Return how copies of few bits lie in memory, by layer; none where none are fetched.

    Raises:
        SpecmdError: they would be no smaller than the experts, or not all experts are in the host.

    """
    if miss.bits and tiered:
        raise SpecmdError(
            f"miss={miss.spelled} keeps copies of all experts in the host: leave host_capacity out"
        )
    return low_bit_layouts(layouts, miss.bits) if miss.bits else ()


def find_device(link: str, device: torch.device | str | None) -> tuple[torch.device, str]:
    """Return the device of the slots, and "cpu" or "accelerator".

    Raises:
        SpecmdError: no such link, or no such device here.

    """
    if link not in ("auto", "cpu", "accelerator"):
        raise SpecmdError(f"link '{link}': choose auto, cpu or accelerator")
    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    try:
        wanted = None if device is None else torch.device(device)
    except RuntimeError:
        raise SpecmdError(f"device '{device}': torch knows no such device") from None
    if link == "auto":
        place = wanted or there
        link = "accelerator" if place is not None and place.type != "cpu" else "cpu"
    if link == "cpu":
        if wanted is not None and wanted.type != "cpu":
            raise SpecmdError(f"the cpu link cannot copy to {wanted}: give link='accelerator'")
        return torch.device("cpu"), "cpu"
    if there is None:
        raise SpecmdError("torch reports no accelerator here: give link='cpu' or leave it out")
    wanted = wanted or there
    if wanted.type != there.type:
        raise SpecmdError(f"device {wanted}: the accelerator here is {there.type}")
    index = wanted.index if wanted.index is not None else torch.accelerator.current_device_index()
    return torch.device(wanted.type, index), "accelerator"
