"""What a live run is made to do: prompts to continue, or a trace to follow.

A workload owns a model and can be *played*: run once from its beginning, the same way every time,
so that repetitions can be compared and a warm-up means something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from specmd.errors import SpecmdError
from specmd.live.placement import find_device
from specmd.measurement.quality import Answers, answers
from specmd.measurement.settings import LiveSettings
from specmd.measurement.trace_workload import TraceWorkload
from specmd.models.generation import Generation
from specmd.trace import Trace


class Workload(Protocol):
    """Anything that can be played through a model.

    Attributes:
        model: on the host.
        name: what results call it.
        facts: what else identifies it, as JSON.
        trace: its routing, where that is known beforehand, or None.

    """

    model: nn.Module
    name: str
    facts: Mapping[str, Any]
    trace: Trace | None

    def offload_options(self, settings: LiveSettings, slots: int | None) -> dict[str, Any]:
        """Arguments of `specmd.offload` that belong to the workload; asked for once a run.

        Args:
            settings: of the run.
            slots: of its cache; None for all experts.

        """
        ...

    def play(self) -> None:
        """Run once, from the beginning, inside the offload block."""
        ...

    def answers(self) -> Answers:
        """Return what the model says to the texts of the workload, inside the offload block.

        Raises:
            SpecmdError: nothing is said where weights are random.

        """
        ...


class PromptWorkload:
    """Generate from prompts in batches, as `specmd record` does. See `Workload`.

    Args:
        model: a transformers causal MoE model.
        tokenizer: its tokenizer.
        generation: texts and how to continue them.
        name: of the model, for results; by default what its configuration says.
        facts: what else identifies it, as JSON.

    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        generation: Generation,
        name: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.model: nn.Module = model
        self.name = name
        self._tokenizer, self._generation = tokenizer, generation
        self.facts: Mapping[str, Any] = {"kind": "prompts", **generation.facts(), **(facts or {})}
        self.texts: Sequence[str] = ()
        self.trace: Trace | None = None

    def offload_options(self, settings: LiveSettings, slots: int | None) -> dict[str, Any]:
        """Nothing beyond the defaults."""
        return {}

    def play(self) -> None:
        """Generate from all prompts; `texts` are the continuations."""
        self.texts = [
            text
            for tokens in self._generation.batches(self.model, self._tokenizer)
            for text in self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        ]

    def answers(self) -> Answers:
        """Force the prompts on the model, and let it go on greedily."""
        return answers(self.model, self._tokenizer, self._generation)


class FollowedTrace:
    """A trace played by random weights of its model's shape. See `Workload`, `specmd.models.dummy`.

    Args:
        played: the trace and its stand-in model.
        name: of the trace, for results.
        facts: what else identifies it, as JSON.

    """

    def __init__(self, played: TraceWorkload, name: str, facts: Mapping[str, Any]) -> None:
        self.model: nn.Module = played.model
        self.name = name
        self.trace: Trace | None = played.trace
        self._played = played
        self.facts: Mapping[str, Any] = {"kind": "trace", **facts}

    def offload_options(self, settings: LiveSettings, slots: int | None) -> dict[str, Any]:
        """Return experts of random bytes, and the trace's routing."""
        if settings.scratch is not None:
            file = self._played.file(Path(settings.scratch))
            return {"store": file, "routing": self._played.routing}
        budget, other_bytes = settings.pinned_budget, 0
        if find_device(settings.link, settings.device)[1] == "cpu":
            header = self._played.trace.header
            count = header.num_layers * header.num_experts if slots is None else slots
            layouts = self._played.layouts
            budget, other_bytes = 0, count * layouts.num_bytes // layouts.num_keys
        store = self._played.store(budget, other_bytes)
        return {"store": store, "routing": self._played.routing}

    def play(self) -> None:
        """Run every step of the trace."""
        self._played.play()

    def answers(self) -> Answers:
        """Refuse."""
        raise SpecmdError("quality is that of a model: a trace is followed by random weights")
