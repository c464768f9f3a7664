"""Anchoring: a profile fitted to a few published or measured times of an engine on a device.

A datasheet and a kind of engine predict a time with an error of one sign: software costs what it
costs, and nobody publishes that. Two times of the same engine do say it. How long a token takes
with all experts resident fixes what a layer costs beside the roofline (`stack.layer_s`); how long
it takes without a cache, or with a small one, what every demanded copy costs the side that computes
(`stack.fetch_s`). Both enter the time of a decode step linearly, so two anchors are two equations,
and everything else (bandwidths, sizes, routing) stays as it was said. One anchor fixes the layer
and leaves the copy to the kind of engine: where two tell, copies cost tenths of a millisecond at
most, layers several. An anchor on the time to first token fixes what share of its peaks a prefill
attains.

Where the equations ask for less than nothing, the figure that must be wrong is raised and said: the
share of memory bandwidth that kernels attain, up to the peak, or the rate of the link, up to what
its wires carry. Beyond that the anchors contradict the device, and the fit refuses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from specmd.errors import SpecmdError
from specmd.hardware.engines import Engine
from specmd.hardware.profile import Attainable, Figure, HardwareProfile, Stack
from specmd.hardware.shape import ModelShape
from specmd.runs.counters import MISSES
from specmd.runs.latency import latency
from specmd.runs.options import RunConfig
from specmd.runs.pools import parse_capacity
from specmd.simulation.costs import CostCoefficients, coefficients
from specmd.simulation.replay import Residency, replay
from specmd.trace import DECODE, Trace, slice_tokens

MISFIT = 0.02
"""A fit that misses an anchor by more than this share refuses."""

_CLOSE = 1.0005  # a search ends when two figures differ by less
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
Metric = Literal["tpot_s", "ttft_s"]


@dataclass(frozen=True)
class Anchor:
    """A time, and of what.

    Attributes:
        what: `resident`, `no_cache`, `ttft`, or a capacity as runs spell it.
        seconds: of a decode step, or of `ttft` to the first token.

    """

    what: str
    seconds: float

    @property
    def metric(self) -> Metric:
        """The metric of a run that it is a value of."""
        return "ttft_s" if self.what == "ttft" else "tpot_s"

    def __str__(self) -> str:
        return f"{self.what}={self.seconds * 1e3:.4g}ms"


@dataclass(frozen=True)
class Anchored:
    """A fitted profile, how well it meets its anchors, and what was assumed on the way."""

    profile: HardwareProfile
    met: dict[str, tuple[float, float]]  # anchor: seconds given, seconds simulated
    assumed: list[str]


def parse_anchor(text: str) -> Anchor:
    """Read `resident=4.4ms`, `no_cache=19.1tok/s`, `25%=12ms`, `ttft=6.3s`; raises SpecmdError."""
    what, _, value = text.partition("=")
    match = re.fullmatch(r"([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)\s*(us|ms|s|tok/s)", value.strip())
    if match is None or not what.strip() or float(match[1]) <= 0:
        raise SpecmdError(
            f"anchor '{text}' is not understood: write resident=4.4ms, no_cache=52ms, 25%=12ms or "
            "ttft=1.3s; a time in s, ms or us, or tok/s of one request"
        )
    number, unit = float(match[1]), match[2]
    return Anchor(what.strip(), 1 / number if unit == "tok/s" else number * _UNITS[unit])


def fit(
    profile: HardwareProfile,
    shape: ModelShape,
    trace: Trace,
    engine: Engine,
    anchors: Sequence[Anchor],
    **options: Any,
) -> Anchored:
    """Fit a profile to anchors.

    Args:
        profile: of the device, as its datasheet says it.
        shape: of the model.
        trace: routing to simulate the anchors with; the bytes of an expert are those it says, or
            the shape does.
        engine: the kind whose attained shares and launches stand where no anchor speaks.
        anchors: one of a decode step or two, and at most one `ttft`.
        **options: of the runs that the anchors are of (evict, scope, admission, tokens, ...).

    Raises:
        SpecmdError: anchors that say nothing together, or that the device cannot meet.

    """
    return _Fit(profile, shape, trace, engine, options).run(anchors)


class _Fit:
    """One fit: the profile as it stands, and what was assumed."""

    def __init__(
        self,
        profile: HardwareProfile,
        shape: ModelShape,
        trace: Trace,
        engine: Engine,
        options: dict[str, Any],
    ) -> None:
        if profile.stack is not None:
            raise SpecmdError(
                f"profile {profile.name} has measured its software: anchor a datasheet's profile"
            )
        if trace.header.layer_bytes is None:
            sized = trace.header.model_copy(update={"expert_bytes": shape.expert_bytes})
            trace = replace(trace, header=sized)
        if (tokens := options.pop("tokens", None)) and tokens < trace.num_tokens:
            trace = slice_tokens(trace, 0, tokens)
        self.shape, self.trace, self.engine, self.options = shape, trace, engine, options
        self.assumed: list[str] = []
        self.profile = profile.model_copy(
            update={
                "stack": self._counted(profile),
                "attainable": Attainable(
                    **{name: getattr(engine, name) for name in Attainable.model_fields}
                ),
            }
        )

    def run(self, anchors: Sequence[Anchor]) -> Anchored:
        steps = [anchor for anchor in anchors if anchor.metric == "tpot_s"]
        firsts = [anchor for anchor in anchors if anchor.metric == "ttft_s"]
        if (
            not 1 <= len(steps) <= 2
            or len(firsts) > 1
            or len({a.what for a in anchors}) < len(anchors)
        ):
            raise SpecmdError(
                "give one or two anchors of a decode step (resident, no_cache, a capacity), "
                "each another, and at most one of ttft"
            )
        said = ", ".join(map(str, anchors))
        self.source = f"fitted to {said} of {self.trace.header.model}, {self.engine.name} engine"
        self._fit_steps(steps)
        for first in firsts:
            self._fit_prefill(first)
        met = {str(anchor): (anchor.seconds, self._simulated(anchor)) for anchor in anchors}
        for anchor, (given, simulated) in met.items():
            if abs(simulated / given - 1) > MISFIT:
                raise SpecmdError(
                    f"{anchor} is not met: the profile that comes nearest gives "
                    f"{simulated * 1e3:.4g} ms; see that sizes, routing and link are those of it"
                )
        profile = self.profile.model_copy(
            update={
                "name": f"{self.profile.name}-anchored",
                "anchored": f"{said} of {self.trace.header.model}",
                "notes": " ".join([self.profile.notes, *self.assumed]).strip(),
            }
        )
        return Anchored(profile, met, self.assumed)

    # What is fitted.

    def _fit_steps(self, anchors: list[Anchor]) -> None:
        """Solve for the costs of a layer and of a demanded copy."""
        layers = float(self.trace.header.num_layers)
        counted = self._counted(self.profile)
        self._set("stack", layer_s=0.0, fetch_s=0.0)
        rest, copies = zip(*map(self._run, anchors), strict=True)
        wanted = np.array([anchor.seconds for anchor in anchors]) - rest
        few, many = int(np.argmin(copies)), int(np.argmax(copies))
        assert counted.fetch_s is not None
        layer_s, fetch_s = counted.layer_s.value, counted.fetch_s.value
        if len(anchors) == 2:
            if copies[many] - copies[few] < 0.01 * copies[many] + 0.01:
                raise SpecmdError(
                    f"{anchors[0]} and {anchors[1]} are of about as many copies: give two that "
                    "differ, as resident and no_cache do"
                )
            system = np.array([[layers, count] for count in copies])
            layer_s, fetch_s = np.linalg.solve(system, wanted).tolist()
        else:
            layer_s = (wanted[0] - copies[0] * fetch_s) / layers
            if layer_s < 0 and copies[0] >= 0.5:
                layer_s, fetch_s = 0.0, wanted[0] / copies[0]
                self.assumed.append("A layer costs nothing beside its kernels.")
            else:
                said = f"A demanded copy costs {fetch_s * 1e6:.0f} us, as of its kind."
                self.assumed.append(said)
        if layer_s < 0:
            layer_s = 0.0
            self._raise_memory_share(anchors[few])
            if many != few:
                seconds, count = self._run(anchors[many])
                fetch_s = (anchors[many].seconds - seconds) / count
        self._set("stack", layer_s=layer_s, fetch_s=max(fetch_s, 0.0))
        if fetch_s < 0:
            self._raise_link_rate(anchors[many])

    def _raise_memory_share(self, anchor: Anchor) -> None:
        self._search(
            anchor,
            lambda share: self._set("attainable", memory_share=share),
            self.engine.memory_share.value,
            1.0,
            f"{anchor}: faster than {self.profile.name} can read the weights, at "
            f"{self.profile.memory_bytes_per_s.value / 1e9:.0f} GB/s",
        )
        figure = self.profile.attainable and self.profile.attainable.memory_share
        assert figure
        self.assumed.append(
            f"Kernels read at {figure.value:.0%} of the peak bandwidth, launches cost nothing."
        )

    def _raise_link_rate(self, anchor: Anchor) -> None:
        link = self.profile.host_link
        most = link.theoretical_bytes_per_s.value
        self._search(
            anchor,
            lambda rate: self._set("host_link", bytes_per_s=rate),
            link.bytes_per_s.value,
            most,
            f"{anchor}: its copies take longer on a link of {most / 1e9:.1f} GB/s, all that "
            f"{link.describe()} carries",
        )
        rate = self.profile.host_link.bytes_per_s.value
        self.assumed.append(
            f"The link carries {rate / 1e9:.2f} GB/s instead of "
            f"{link.bytes_per_s.value / 1e9:.2f}, and a copy costs no computing."
        )

    def _fit_prefill(self, anchor: Anchor) -> None:
        peaks = ("prefill_memory_share", "prefill_flops_share")
        fails = f"{anchor}: a prefill takes longer even at the peaks, for its experts have to come"

        def attain(share: float) -> None:
            self._set("attainable", **dict.fromkeys(peaks, share))

        self._search(anchor, attain, 1e-4, 1.0, fails)
        figure = self.profile.attainable and self.profile.attainable.prefill_flops_share
        assert figure
        self.assumed.append(f"A prefill attains {figure.value:.1%} of the peaks.")

    def _search(
        self, anchor: Anchor, apply: Callable[[float], None], low: float, high: float, fails: str
    ) -> None:
        """Find the figure, the larger the faster, at which an anchor is met; by bisection."""
        apply(high)
        if self._simulated(anchor) > anchor.seconds * (1 + MISFIT):
            raise SpecmdError(fails)
        while high > low * _CLOSE:
            middle = (low * high) ** 0.5
            apply(middle)
            if self._simulated(anchor) > anchor.seconds:
                low = middle
            else:
                high = middle
        apply(high)

    # The profile, and runs on it.

    def _counted(self, profile: HardwareProfile) -> Stack:
        """Return the software of the kind of engine as a stack."""
        engine = self.engine
        costs = coefficients(
            profile.model_copy(update={"stack": None}), self.shape, self._bytes(), engine
        )
        source = f"counted for the {engine.name} engine"

        def seconds(value: float) -> Figure:
            return Figure(value=value, unit="s", kind="derived", source=source)

        return Stack(
            expert_s=seconds(costs.launch_s),
            layer_s=seconds(costs.layer_launch_s + costs.decide_s),
            step_s=seconds(costs.step_launch_s),
            fetch_s=seconds(costs.fetch_s),
        )

    def _set(self, group: str, **values: float) -> None:
        """Give figures of a group of the profile other values, and say where they are from."""
        before = getattr(self.profile, group)
        changed = {
            name: getattr(before, name).model_copy(
                update={"value": value, "kind": "derived", "source": self.source, "url": None}
            )
            for name, value in values.items()
        }
        self.profile = self.profile.model_copy(update={group: before.model_copy(update=changed)})

    def _bytes(self) -> int:
        sizes = self.trace.header.layer_bytes
        assert sizes
        return round(sum(sizes) / len(sizes))

    def _costs(self) -> CostCoefficients:
        return coefficients(self.profile, self.shape, self._bytes(), self.engine)

    def _simulated(self, anchor: Anchor) -> float:
        return self._run(anchor)[0]

    def _run(self, anchor: Anchor) -> tuple[float, float]:
        """Return seconds of an anchor's metric, and the copies that a decode step demands."""
        header = self.trace.header
        named: dict[str, Residency] = {"resident": "all", "no_cache": "none", "ttft": "cache"}
        residency = named.get(anchor.what, "cache")
        options = {"capacity": "100%", **self.options}
        if anchor.what not in named:
            options["capacity"] = anchor.what
        how = {name: options[name] for name in ("scope", "allocate") if name in options}
        slots = parse_capacity(
            options["capacity"], header.num_layers, header.num_experts, header.layer_bytes, **how
        )
        config = RunConfig(capacity_slots=slots, **options)
        outcome = replay(self.trace, config, costs=self._costs(), residency=residency)
        assert outcome.step_seconds is not None
        found = latency(self.trace, outcome.step_seconds, outcome.first_step, None).metrics
        seconds = found[anchor.metric]
        if seconds is None:
            what = "no recorded prompt" if anchor.metric == "ttft_s" else "no decode step"
            raise SpecmdError(f"{anchor}: the trace has {what} to hold it against")
        misses = outcome.counters[DECODE, :, list(MISSES)].sum()
        steps = np.unique(self.trace.step[self.trace.phase == DECODE])
        return seconds, float(misses / max(1, (steps >= outcome.first_step).sum()))
