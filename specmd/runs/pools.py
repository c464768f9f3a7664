"""Pools: how the slots of a cache are divided, by the layer they serve and the size they have.

A slot holds one expert of its size. Where the layers of a model differ in the bytes of an expert,
as those of a mixed quantisation do, slots come in as many size classes, and each class is a pool of
its own: nothing is wasted on the smaller experts, nothing is fragmented, and the optimum of every
class is Belady's. A capacity is shared among the classes in proportion to their experts. Under
`scope=layer` every layer is a pool, whatever its size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from specmd.core.event import Sizes, World
from specmd.errors import SpecmdError
from specmd.policy.needs import Offer, unmet
from specmd.policy.registry import choose
from specmd.runs.declared import Scope
from specmd.runs.options import RunConfig, parse_bytes
from specmd.trace import Trace
from specmd.trace.header import TraceHeader
from specmd.trace.training import training_rows


class Pools(NamedTuple):
    """The pools of a cache."""

    slots: tuple[int, ...]  # (pools,)
    of_layer: tuple[int, ...]  # (layers,) the pool that serves a layer

    def bytes(self, layer_bytes: Sequence[int]) -> int:
        """Bytes of all slots, given those of an expert of each layer."""
        size = dict(zip(self.of_layer, layer_bytes, strict=True))
        return sum(slots * size[pool] for pool, slots in enumerate(self.slots))


def pools_of(
    header: TraceHeader,
    config: RunConfig,
    slots: int | None = None,
    *,
    training: Trace | None = None,
) -> Pools:
    """Divide a run's slots, or so many others, among its pools."""
    return divide(
        config.capacity_slots if slots is None else slots,
        header.num_layers,
        header.layer_bytes,
        scope=config.scope,
        allocate=config.allocate,
        model=header,
        training=training,
    )


def host_pools(header: TraceHeader, config: RunConfig) -> Pools:
    """Divide the slots of a run's host tier: one pool for every size of expert."""
    return divide(config.host_slots or 0, header.num_layers, header.layer_bytes)


def divide(
    slots: int,
    layers: int,
    layer_bytes: Sequence[int] | None = None,
    *,
    scope: Scope = "global",
    allocate: str = "uniform",
    model: Sizes | None = None,
    training: Trace | None = None,
) -> Pools:
    """Divide slots among pools.

    Args:
        slots: all of them.
        layers: MoE layers.
        layer_bytes: (layers,) bytes of an expert; None: not known, so taken as all alike.
        scope: one pool for every size, or one a layer.
        allocate: the policy that gives the layers their slots under `scope=layer`.
        model: whose experts they are; None: not known, and then only an even split can be had.
        training: the trace that policies fitted beforehand are fitted on.

    Raises:
        SpecmdError: the policy needs a training trace and there is none, or its quotas are none.

    """
    if scope == "layer":
        keys = None if model is None else model.num_layers * model.num_experts
        if allocate == "uniform" or model is None or keys is None or slots >= keys:
            each, over = divmod(slots, layers)
            quotas: tuple[int, ...] = tuple(each + (layer < over) for layer in range(layers))
        else:
            of_model = (model.num_layers, model.num_experts, model.top_k)
            choice = choose("allocate", allocate)
            quotas = _quotas(choice.spelled, choice.cls, slots, of_model, training)
        return Pools(quotas, tuple(range(layers)))
    sizes = sorted(set(layer_bytes or (0,)))
    of_layer = tuple(map(sizes.index, layer_bytes or (0,) * layers))
    served = [of_layer.count(pool) for pool in range(len(sizes))]
    shares = [slots * count / layers for count in served]
    found = [int(share) for share in shares]
    by_rest = sorted(range(len(sizes)), key=lambda pool: found[pool] - shares[pool])
    for pool in by_rest[: slots - sum(found)]:
        found[pool] += 1
    return Pools(tuple(found), of_layer)


class _Model(NamedTuple):
    num_layers: int
    num_experts: int
    top_k: int


@lru_cache(maxsize=256)
def _quotas(
    allocate: str, _cls: type, slots: int, sizes: tuple[int, int, int], training: Trace | None
) -> tuple[int, ...]:
    """Ask an allocation policy, and look at what it says; fewer slots than there are keys."""
    choice, model = choose("allocate", allocate), _Model(*sizes)
    if reason := unmet(choice, Offer(training=training is not None)):
        raise SpecmdError(reason)
    rows = training_rows(training) if training and "training" in choice.needs else None
    world = World.of(model, [slots], training=rows)
    found = tuple(map(int, choice.create().quotas(slots, world)))
    whole = len(found) == model.num_layers and sum(found) == slots
    if not whole or not 0 <= min(found) <= max(found) <= model.num_experts:
        raise SpecmdError(
            f"allocate policy {allocate} divides {slots} slots among {model.num_layers} layers of "
            f"{model.num_experts} experts into {list(found)}: they are to add up, and no layer can "
            "have more than its experts"
        )
    return found


def fit(
    n_bytes: int,
    layer_bytes: Sequence[int],
    num_experts: int,
    *,
    scope: Scope = "global",
    allocate: str = "uniform",
    model: Sizes | None = None,
    training: Trace | None = None,
) -> int:
    """Return the most slots that take no more than so many bytes, divided as `divide` does.

    Args:
        n_bytes: there are.
        layer_bytes: (layers,) bytes of an expert.
        num_experts: E, experts of a layer.
        scope: see `divide`.
        allocate: see `divide`.
        model: see `divide`.
        training: see `divide`.

    """
    layers = len(layer_bytes)
    slots = n_bytes // min(layer_bytes)
    if len(set(layer_bytes)) == 1:
        return slots
    slots = min(slots, layers * num_experts)

    def size(slots: int) -> int:
        pools = divide(
            slots,
            layers,
            layer_bytes,
            scope=scope,
            allocate=allocate,
            model=model,
            training=training,
        )
        return pools.bytes(layer_bytes)

    while slots and size(slots) > n_bytes:
        slots -= max(1, (size(slots) - n_bytes) // max(layer_bytes))
    return slots


_MOST = 2**31 - 1  # keys are numbered in 32 bits
_NO_SIZE = (
    "capacity '{}' is in bytes, but the trace does not say how large an expert is: import it with "
    "--expert-bytes, or give slots"
)


def _left(spelled: str, room: Callable[[int | None], int] | None) -> int | None:
    """Bytes for slots where a capacity says what is held altogether; None where it does not."""
    total = re.fullmatch(r"(.*[0-9]\s*[KMG]?i?B)\s+total", spelled, re.IGNORECASE)
    if total is None and spelled.lower() != "free":
        return None
    if room is None:
        raise SpecmdError(f"capacity '{spelled}' is not known here: give slots, a share or bytes")
    return room(parse_bytes(total[1]) if total else None)


def parse_capacity(
    text: str | int,
    num_layers: int,
    num_experts: int,
    layer_bytes: Sequence[int] | None,
    *,
    scope: Scope = "global",
    allocate: str = "uniform",
    model: Sizes | None = None,
    training: Trace | None = None,
    room: Callable[[int | None], int] | None = None,
) -> int:
    """Slots, over all layers, that a capacity stands for.

    Args:
        text: the capacity.
        num_layers: MoE layers.
        num_experts: E, experts of a layer.
        layer_bytes: (layers,) bytes of an expert; None: not known.
        scope: see `divide`.
        allocate: see `divide`.
        model: see `divide`.
        training: see `divide`.
        room: says how many bytes so many in total leave for slots; asked None, how many the device
            does.

    Raises:
        SpecmdError: a spelling that means nothing, bytes where the trace does not say how large an
            expert is, less than one slot.

    """
    spelled = str(text).strip()

    def fitting(n_bytes: int, sizes: Sequence[int]) -> int:
        how: dict[str, Any] = {
            "scope": scope,
            "allocate": allocate,
            "model": model,
            "training": training,
        }
        return fit(n_bytes, sizes, num_experts, **how)

    left = _left(spelled, room)
    if left is not None:
        if layer_bytes is None:
            raise SpecmdError(_NO_SIZE.format(spelled))
        slots = fitting(left, layer_bytes)
        if slots < 1:
            raise SpecmdError(
                f"capacity '{spelled}' leaves {max(left, 0) / 1e9:.2f} GB for slots, less than one "
                "expert: the rest is other weights, keys and values, and staging"
            )
        return min(slots, num_layers * num_experts)
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(%|/layer|[KMG]?i?B)?", spelled, re.IGNORECASE)
    if match is None:
        raise SpecmdError(
            f"capacity '{spelled}' is not understood: write slots (51), slots a layer (16/layer), "
            "a share of all experts (5%), bytes (0.6GB), '8GB total', or free"
        )
    number, unit = float(match[1]), (match[2] or "").upper()
    keys = num_layers * num_experts
    if unit == "%":
        slots = int(keys * number / 100 + 1e-9)
    elif unit == "/LAYER":
        slots = int(number * num_layers)
    elif unit:
        if layer_bytes is None:
            raise SpecmdError(_NO_SIZE.format(spelled))
        wanted = parse_bytes(spelled)
        slots = fitting(wanted, layer_bytes)
    elif "." in match[1]:
        raise SpecmdError(f"capacity '{spelled}' is not a whole number of slots; a share is '5%'")
    else:
        slots = int(match[1])
    if slots < 1:
        raise SpecmdError(f"capacity '{spelled}' is less than one slot")
    if slots > _MOST:
        raise SpecmdError(f"capacity '{spelled}' is more slots than there can be experts")
    return slots
