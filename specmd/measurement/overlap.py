"""Whether copies hide behind computing: step time against its larger leg, and against no overlap.

One model, one sequence of decode steps, run several times in turn: with every expert resident (what
computing takes), without prefetch and with `miss=block` (nothing overlaps), and with prefetchers.
The link is throttled so that copying what misses takes a given share of the computing. The model is
made predictable, so that the prefetch works: all layers share one gate and hardly change the
residual stream, and a batch of equal rows makes an expert's computing worth hiding behind. With a
working prefetch a step takes at most LARGER_LEG_LIMIT of the larger of computing and copying, and
at most BLOCKING_LIMIT of the blocking run. The copy thread needs a core of its own: on a machine
with one, or a busy one, the limits cannot be met.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from specmd.live import Report, offload
from specmd.models.moe import find_moe
from specmd.models.passes import cache_argument

LARGER_LEG_LIMIT = 1.15
BLOCKING_LIMIT = 0.75
LAYERS, EXPERTS, TOP_K, WIDTH = 6, 16, 4, 640
EXPERT_BYTES = 3 * WIDTH * WIDTH * 4
LATENCY_S = 20e-6
SETTINGS = (
    ("none", "block", "fifo"),
    ("none", "overlap", "fifo"),
    ("next_gate", "overlap", "guard"),
    ("next_gate:depth=2", "overlap", "guard"),
)
WORKING = 2  # of SETTINGS: the prefetch that the limits are for


@dataclass(frozen=True)
class Overlap:
    """What was measured.

    Attributes:
        compute_s: of a step with every expert resident.
        bytes_per_s: what the link was throttled to.
        rows: one for each of SETTINGS, medians over the repetitions: its policies, seconds of a
            step and of its copies and stalls, counts, `over_larger_leg` and `over_blocking`.

    """

    compute_s: float
    bytes_per_s: float
    rows: list[dict[str, Any]]

    @property
    def met(self) -> bool:
        """Whether the working prefetch keeps both limits."""
        row = self.rows[WORKING]
        return bool(
            row["over_larger_leg"] <= LARGER_LEG_LIMIT and row["over_blocking"] <= BLOCKING_LIMIT
        )


def predictable_model() -> Any:
    """Make a random OLMoE whose gates are right about other layers' inputs, too."""
    import transformers

    config = transformers.OlmoeConfig(
        vocab_size=256,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=8,
        num_experts=EXPERTS,
        num_experts_per_tok=TOP_K,
        max_position_embeddings=256,
        eos_token_id=None,
        pad_token_id=1,
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model: Any = transformers.OlmoeForCausalLM(config)
        model.eval()
        layers: Sequence[Any] = find_moe(model).layers
        shared = layers[0].gate.weight * 20
        for layer in layers:
            layer.gate.weight.copy_(shared)
            layer.experts.down_proj.mul_(0.05)
        for name, parameter in model.named_parameters():
            if "o_proj" in name:
                parameter.mul_(0.05)
        model.model.embed_tokens.weight.mul_(100)
    return model


@torch.no_grad()
def measure_overlap(
    *,
    device: str | None = None,
    link: str = "auto",
    share: float = 0.9,
    batch: int = 24,
    steps: int = 30,
    repetitions: int = 3,
    threads: int | None = 1,
) -> Overlap:
    """Run every setting in turn, `repetitions` times.

    Args:
        device: of the slots, as `offload` takes it.
        link: likewise.
        share: copying over computing.
        batch: equal rows.
        steps: decode steps of a run.
        repetitions: of everything.
        threads: of computing, on the cpu link.

    """
    model = predictable_model()
    placed: Any = {"device": device, "link": link, "compute_threads": threads}
    resident: list[float] = []
    found: list[list[dict[str, float]]] = [[] for _ in SETTINGS]
    bytes_per_s = 0.0
    for _ in range(repetitions):
        with offload(model, "lru", capacity="100%", **placed):
            _mean_step_s(model, batch, steps)
            resident.append(_mean_step_s(model, batch, steps))
        if not bytes_per_s:
            bytes_per_s = LAYERS * TOP_K * EXPERT_BYTES / (resident[0] * share)
        for setting, several in zip(SETTINGS, found, strict=True):
            several.append(_run(model, setting, bytes_per_s, batch, steps, placed))
    compute_s = statistics.median(resident)
    rows: list[dict[str, Any]] = []
    for (prefetch, miss, _), several in zip(SETTINGS, found, strict=True):
        row: dict[str, Any] = {"prefetch": prefetch, "miss": miss}
        row |= {name: statistics.median(r[name] for r in several) for name in several[0]}
        row["over_larger_leg"] = row["step_s"] / max(compute_s, row["busy_step_s"])
        row["over_blocking"] = row["step_s"] / (rows[0] if rows else row)["step_s"]
        rows.append(row)
    return Overlap(compute_s, bytes_per_s, rows)


def _mean_step_s(
    model: Any, batch: int, steps: int, begun: Callable[[], object] = lambda: None
) -> float:
    """Mean seconds of a decode step; every call feeds the same tokens, equal in all rows.

    `begun` is called between the prompt and the first step.
    """
    device = model.get_input_embeddings().weight.device
    seeded = torch.Generator().manual_seed(1)
    prompt = torch.randint(3, 250, (1, 8), generator=seeded).repeat(batch, 1).to(device)
    fed = torch.randint(3, 250, (steps, 1, 1), generator=seeded).to(device)
    argument = cache_argument(find_moe(model).decoder)
    past = {argument: model(prompt, use_cache=True)[argument]}
    _settle(device)
    begun()
    start = time.perf_counter()
    for tokens in fed:
        model(tokens.repeat(batch, 1), use_cache=True, **past)
    _settle(device)
    return (time.perf_counter() - start) / steps


def _settle(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _run(
    model: Any,
    setting: tuple[str, str, str],
    bytes_per_s: float,
    batch: int,
    steps: int,
    placed: dict[str, Any],
) -> dict[str, float]:
    """One setting once: seconds a step, its time on the link, its stalls, counts."""
    prefetch, miss, schedule = setting
    reports: list[Report] = []
    with offload(
        model, "fifo", EXPERTS, prefetch=prefetch, schedule=schedule, miss=miss,
        throttle=(bytes_per_s, LATENCY_S), chunk_bytes=1 << 20, **placed,
    ) as cache:  # fmt: skip
        _mean_step_s(model, batch, 4)
        step_s = _mean_step_s(model, batch, steps, lambda: reports.append(cache.report()))
        reports.append(cache.report())

    def gained(name: str) -> float:
        return float(getattr(reports[1], name) - getattr(reports[0], name))

    times = ("busy", "demand_stall", "late_stall")
    return (
        {"step_s": step_s}
        | {f"{name}_step_s": gained(f"{name}_s") / steps for name in times}
        | {name: gained(name) for name in ("hits", "late_hits", "misses")}
    )
