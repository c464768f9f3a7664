"""Roofline costs: how long a piece of a step takes on a profile.

A kernel is bound either by arithmetic or by device memory, whichever takes longer, plus what it
costs to launch: `max(flops / flop_rate, bytes / memory_bandwidth) + launch` (Williams, Waterman
and Patterson, "Roofline", CACM 52(4), 2009). A matrix product does two flops per weight and token
but reads each weight once however many tokens share it. So decode, one token per expert, is bound
by memory, and an expert becomes compute bound only from `flop_rate / memory_bandwidth` tokens on
(bf16): 153 on an 80 GB A100, 295 on an H100. A transfer over the host link costs
`latency + bytes / bandwidth`. Kernels attain a share of the peak rates, in a prefill another one,
and what is launched is counted by the kind of engine (`specmd.hardware.engines`).

`coefficients` folds a profile and a shape into `CostCoefficients`, plain floats of seconds; the
functions below it are pure arithmetic on them, so that the same source runs interpreted and
compiled by numba inside the simulator's kernel.
"""

from __future__ import annotations

from typing import NamedTuple

from specmd.errors import SpecmdError
from specmd.hardware.engines import Engine, load_engine
from specmd.hardware.profile import HardwareProfile
from specmd.hardware.shape import ModelShape

FLOPS_PER_WEIGHT = 2.0  # one multiply and one add per weight and token
BF16_BYTES = 2.0
# Of the theoretical bandwidth of host memory: assumed, kernels on processors reach 60 to 80 %.
HOST_MEMORY_SHARE = 0.7


class CostCoefficients(NamedTuple):
    """Everything the simulator's kernel needs, in seconds and bytes; see the functions below."""

    expert_flop_s: float  # per token through one expert
    read_s_per_byte: float  # an expert's weights out of device memory
    launch_s: float  # the kernels of one expert
    layer_flop_s_per_token: float  # dense part of one layer
    attn_flop_s: float  # per token and token of context it attends
    layer_read_s: float  # dense weights of one layer
    kv_read_s: float  # KV cache of one layer, per token of context
    layer_launch_s: float  # the kernels of one layer's dense part
    head_flop_s: float  # per token whose logits are computed
    head_read_s: float  # weights of the output head
    step_launch_s: float  # the kernels of embedding and head
    latency_s: float  # per transfer over the host link
    bytes_per_s: float  # host link, achievable
    chunk_bytes: float  # a transfer yields to a more urgent one at multiples of this
    wake_s: float = 0.0  # on top, for the first transfer after a pause of the link
    resume_s: float = 0.0  # lost by computing in a layer that waited
    transfer_s: float = 0.0  # lost by computing for each prefetch
    fetch_s: float = 0.0  # lost by computing for each demanded copy
    predict_s: float = 0.0  # a layer in which a prefetcher looks ahead
    decide_s: float = 0.0  # a layer whose experts are cached: its routing comes to the host
    host_flop_s: float = 0.0  # per token through one expert, on the host
    host_read_s_per_byte: float = 0.0  # an expert's weights out of host memory
    host_token_s: float = 0.0  # activations of a token, to the host and back
    prefill_flop_scale: float = 1.0  # seconds of arithmetic in a prefill, over those in decode
    prefill_read_scale: float = 1.0  # the same, of reading
    disk_latency_s: float = 0.0  # per expert read into host memory
    disk_s_per_byte: float = 0.0
    weight_flop_s: float = 0.0  # per token and weight of a predictor
    weight_read_s: float = 0.0  # a weight of a predictor, bf16
    kernel_s: float = 0.0  # to launch one kernel; 0 where `predict_s` was measured with it
    gate_weights: float = 0.0  # of the gate of one layer
    asks: float = 0.0  # most kernels of a predictor in a layer: one for each layer that still comes
    ask_weights: float = 0.0  # of each of them


def expert_s(c: CostCoefficients, tokens: float, n_bytes: float) -> float:
    """Seconds a resident expert of `n_bytes` computes for `tokens` tokens; none cost nothing."""
    if tokens <= 0:
        return 0.0
    return max(tokens * c.expert_flop_s, n_bytes * c.read_s_per_byte) + c.launch_s


def host_expert_s(c: CostCoefficients, tokens: float, n_bytes: float) -> float:
    """Seconds the host computes an expert of `n_bytes` for `tokens` tokens, activations moved."""
    computing_s = max(tokens * c.host_flop_s, n_bytes * c.host_read_s_per_byte)
    return computing_s + tokens * c.host_token_s


def layer_s(
    c: CostCoefficients, tokens: float, context: float, requests_context_tokens: float
) -> float:
    """Seconds of one layer's dense part: attention, norms, router, shared experts.

    `tokens` are new tokens of the step over all requests, `context` the mean number of tokens each
    of them attends, `requests_context_tokens` the KV entries read: the sum over the requests of
    their context. One request decoding at position n: `layer_s(c, 1, n, n)`. A causal prefill of n:
    `layer_s(c, n, (n + 1) / 2, n)`.
    """
    if tokens <= 0:
        return 0.0
    flop_s = tokens * c.layer_flop_s_per_token + tokens * context * c.attn_flop_s
    read_s = c.layer_read_s + requests_context_tokens * c.kv_read_s
    return max(flop_s, read_s) + c.layer_launch_s


def predicting_s(c: CostCoefficients, tokens: float, layers_left: int) -> float:
    """Seconds a predictor's kernels take in a layer behind which so many are left."""
    asks = min(c.asks, layers_left)
    if asks <= 0:
        return 0.0
    weights = c.ask_weights
    return asks * (max(tokens * weights * c.weight_flop_s, weights * c.weight_read_s) + c.kernel_s)


def with_predictor(c: CostCoefficients, gates: int, weights: int) -> CostCoefficients:
    """Return the costs where a prefetcher looks ahead in every layer.

    It asks up to so many gates of later layers, or multiplies by so many `weights` of its own; a
    table does neither. What its software takes is spent in every layer.
    """
    return c._replace(
        layer_launch_s=c.layer_launch_s + c.predict_s,
        asks=float(gates or min(weights, 1)),
        ask_weights=c.gate_weights if gates else float(weights),
    )


def step_s(c: CostCoefficients, tokens: float) -> float:
    """Seconds of embedding and output head, once a step; `tokens` whose logits are computed.

    Looking up an embedding row reads a few KB and is left out; its kernel is counted. A chunk of a
    prefill that yields no token has 0 of them, and costs nothing here.
    """
    if tokens <= 0:
        return 0.0
    return max(tokens * c.head_flop_s, c.head_read_s) + c.step_launch_s


def transfer_s(c: CostCoefficients, n_bytes: float) -> float:
    """Seconds one transfer of `n_bytes` occupies an idle host link."""
    return c.latency_s + n_bytes / c.bytes_per_s


def read_s(c: CostCoefficients, n_bytes: float) -> float:
    """Seconds one expert of `n_bytes` occupies an idle disk, on its way into host memory."""
    return c.disk_latency_s + n_bytes * c.disk_s_per_byte


def coefficients(
    profile: HardwareProfile,
    shape: ModelShape | None,
    expert_bytes: int,
    engine: Engine | None = None,
) -> CostCoefficients:
    """Fold a profile, a shape and a kind of engine into plain floats.

    `expert_bytes` is the size of one expert as stored and moved (the mean where layers differ),
    which may be another than the shape's own when the experts are quantized: the arithmetic stays
    that of the shape. Without a shape only `expert_bytes` is known: an expert then holds
    `expert_bytes / 2` bf16 parameters, and the dense part costs nothing at all (see
    `cost_warnings`). A profile that was calibrated knows the costs of its own software, and none
    are taken from `engine`; any other takes those of the default kind where none is given.
    """
    if expert_bytes <= 0:
        raise SpecmdError(f"expert_bytes is {expert_bytes}; give the size of one expert in bytes")
    rates = _rates(profile, engine or load_engine(None))
    software = _software(profile, engine or load_engine(None), shape is not None)
    link = profile.host_link
    host_memory = profile.host_memory_bytes_per_s.value * HOST_MEMORY_SHARE
    weights = shape.expert_matrix_parameters if shape else expert_bytes / BF16_BYTES
    host_flops = profile.host_flops_per_s
    moving = {
        "host_read_s_per_byte": 1 / host_memory,
        "host_flop_s": FLOPS_PER_WEIGHT * weights / host_flops.value if host_flops else 0.0,
        "host_token_s": 2 * link.latency_s.value
        + 2 * (shape.hidden if shape else 0) * BF16_BYTES / link.bytes_per_s.value,
        "latency_s": link.latency_s.value,
        "bytes_per_s": link.bytes_per_s.value,
        "chunk_bytes": link.chunk_bytes.value,
        "wake_s": link.wake_s.value if link.wake_s else 0.0,
        "prefill_flop_scale": rates["flops"] / rates["prefill_flops"],
        "prefill_read_scale": rates["memory"] / rates["prefill_memory"],
    }
    if profile.ssd is not None:
        moving["disk_latency_s"] = profile.ssd.latency_s.value
        moving["disk_s_per_byte"] = 1 / profile.ssd.bytes_per_s.value
    flops_per_s, memory_bytes_per_s = rates["flops"], rates["memory"]
    moving["weight_flop_s"] = FLOPS_PER_WEIGHT / flops_per_s
    moving["weight_read_s"] = BF16_BYTES / memory_bytes_per_s
    moving["gate_weights"] = float(shape.hidden * shape.experts) if shape else 0.0
    if shape is None:
        nothing = ("layer_flop_s_per_token", "attn_flop_s", "layer_read_s", "kv_read_s")
        return CostCoefficients(
            expert_flop_s=FLOPS_PER_WEIGHT * (expert_bytes / BF16_BYTES) / flops_per_s,
            read_s_per_byte=1 / memory_bytes_per_s,
            head_flop_s=0.0,
            head_read_s=0.0,
            **dict.fromkeys(nothing, 0.0),
            **software,
            **moving,
        )
    share = shape.layers / shape.moe_layers  # layers without experts, charged evenly
    dense_bytes_per_weight = shape.dense_weight_bits / 8
    # A new token meets each attended token in q.k and in the weighted sum of v, in every head.
    attn_weights = shape.heads * (shape.qk_head_dim + shape.v_head_dim)
    if profile.stack is None:
        software["layer_launch_s"] *= share
    return CostCoefficients(
        expert_flop_s=FLOPS_PER_WEIGHT * shape.expert_matrix_parameters / flops_per_s,
        read_s_per_byte=1 / memory_bytes_per_s,
        layer_flop_s_per_token=FLOPS_PER_WEIGHT * shape.dense_parameters / flops_per_s,
        attn_flop_s=FLOPS_PER_WEIGHT * attn_weights * share / flops_per_s,
        layer_read_s=shape.dense_parameters * dense_bytes_per_weight / memory_bytes_per_s,
        kv_read_s=shape.kv_bytes_per_token * share / memory_bytes_per_s,
        head_flop_s=FLOPS_PER_WEIGHT * shape.head_parameters / flops_per_s,
        head_read_s=shape.head_parameters * dense_bytes_per_weight / memory_bytes_per_s,
        **software,
        **moving,
    )


def _rates(profile: HardwareProfile, engine: Engine) -> dict[str, float]:
    """Return what is attained of flops_per_s and memory_bytes_per_s, in decode and in prefill."""
    attained = profile.attainable
    peak = {"flops": profile.flops_per_s.value, "memory": profile.memory_bytes_per_s.value}
    found = {}
    for name in ("memory", "flops", "prefill_memory", "prefill_flops"):
        figure = getattr(attained, f"{name}_share") if attained else None
        if attained is None and profile.stack is None and not profile.calibrated:
            figure = getattr(engine, f"{name}_share")
        share = figure.value if figure else 1.0
        found[name] = peak[name.removeprefix("prefill_")] * share
    return found


def _software(profile: HardwareProfile, engine: Engine, known: bool) -> dict[str, float]:
    """Return what software adds: measured by the profile's calibration, else counted launches.

    Without a shape (`known` False) there are no layers whose launches could be counted.
    """
    stack = profile.stack
    if stack is not None:
        lost = ("resume_s", "fetch_s", "transfer_s", "predict_s")
        return {
            "launch_s": stack.expert_s.value,
            "layer_launch_s": stack.layer_s.value,
            "step_launch_s": stack.step_s.value,
            **{name: figure.value if (figure := getattr(stack, name)) else 0.0 for name in lost},
        }
    launch_s = (engine.launch_s or profile.launch_s).value
    return {
        "launch_s": engine.expert_launches.value * launch_s,
        "layer_launch_s": engine.layer_launches.value * launch_s if known else 0.0,
        "step_launch_s": engine.step_launches.value * launch_s if known else 0.0,
        "decide_s": engine.decide_s.value,
        "kernel_s": launch_s,
        "fetch_s": engine.fetch_s.value,
    }


def in_prefill(c: CostCoefficients) -> CostCoefficients:
    """Return the costs at the rates that a prefill attains."""
    flop, read = c.prefill_flop_scale, c.prefill_read_scale
    return c._replace(
        expert_flop_s=c.expert_flop_s * flop,
        read_s_per_byte=c.read_s_per_byte * read,
        layer_flop_s_per_token=c.layer_flop_s_per_token * flop,
        attn_flop_s=c.attn_flop_s * flop,
        weight_flop_s=c.weight_flop_s * flop,
        weight_read_s=c.weight_read_s * read,
        layer_read_s=c.layer_read_s * read,
        kv_read_s=c.kv_read_s * read,
        head_flop_s=c.head_flop_s * flop,
        head_read_s=c.head_read_s * read,
    )


def cost_warnings(
    profile: HardwareProfile,
    shape: ModelShape | None,
    expert_bytes: int,
    engine: Engine | None = None,
) -> list[str]:
    """List what to print beside a simulated time: uncalibrated profile, unknown model."""
    found = profile.warnings()
    if profile.stack is None:
        kind = engine or load_engine(None)
        found.append(f"software assumed: {kind.title} (--engine {kind.name})")
    if shape is None:
        found.append(
            f"model shape unknown: experts of {expert_bytes} bytes are taken as bf16, attention, "
            "router and output head cost nothing; give a shape to time whole steps"
        )
    return found
