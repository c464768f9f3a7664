"""What a policy may ask to know beyond the event: each need in one row.

A policy that did not declare a need is not shown what fills it, whatever policies run beside it
have declared; one whose need is not met is skipped, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from specmd.core.state import Chunk
    from specmd.policy.registry import Choice
    from specmd.trace import Trace

Name = Literal[
    "future",
    "training",
    "lookahead",
    "weights",
    "logits",
    "rates",
    "model",
    "renormalised",
    "residuals",
    "draft",
    "choices",
]


@dataclass(frozen=True)
class Offer:
    """What a run can tell its policies."""

    future: bool = True
    training: bool = False
    lookahead: int = 0  # layers ahead that scores reach
    weights: bool = True
    logits: bool = False
    rates: bool = False
    model: bool = False  # the policy's own parameter names a file
    renormalised: int = 0  # layers ahead, as above
    residuals: int = 0  # layers ahead that a training trace has scores and logits of
    draft: bool = False


class Need(NamedTuple):
    """How a need is met, what it is called, what to do where it is not met, and what fills it."""

    met: Callable[[Offer, int], bool]  # of an offer, and of how many layers ahead a policy looks
    text: str
    remedy: str
    fills: tuple[str, ...] = ()  # columns of a chunk


NEEDS: dict[str, Need] = {
    "future": Need(
        lambda offer, _: offer.future,
        "to know the future",
        "a live run does not: record a trace and simulate it",
        ("next_use",),
    ),
    "training": Need(
        lambda offer, _: offer.training, "a training trace", "give one (--training, training=)"
    ),
    "lookahead": Need(
        lambda offer, ahead: offer.lookahead >= max(1, ahead),
        "lookahead scores",
        "there are none, or they reach less far ahead",
    ),
    "renormalised": Need(
        lambda offer, ahead: offer.renormalised >= max(1, ahead),
        "re-normalised lookahead scores",
        "there are none, or they reach less far ahead",
    ),
    "residuals": Need(
        lambda offer, ahead: offer.residuals >= max(1, ahead),
        "a training trace with logits and lookahead scores",
        "record one (record --logits --lookahead), and give it (--training, training=)",
    ),
    "draft": Need(lambda offer, _: offer.draft, "drafted experts", "the trace has no draft_ids"),
    "choices": Need(lambda offer, _: True, "each token's request and choice", ""),
    "weights": Need(
        lambda offer, _: offer.weights, "router weights", "the trace has none", ("gates",)
    ),
    "logits": Need(lambda offer, _: offer.logits, "router logits", "the trace has none"),
    "rates": Need(
        lambda offer, _: offer.rates,
        "to know what a transfer and an expert on the host take",
        "name a profile, or give the policy's own parameters",
    ),
    "model": Need(
        lambda offer, _: offer.model,
        "learned weights",
        "`specmd train` writes them: name its file, :model=FILE",
    ),
}


def offered(trace: Trace, training: Trace | None, *, timed: bool = False) -> Offer:
    """Return what a simulation of a trace can tell; with a profile it is `timed`."""
    return Offer(
        training=training is not None,
        lookahead=_depth(trace.lookahead),
        weights=trace.weights is not None,
        logits=trace.logits is not None,
        rates=timed,
        renormalised=_depth(trace.lookahead_renormalised),
        residuals=_depth(training.lookahead) if training and training.logits is not None else 0,
        draft=trace.draft_ids is not None,
    )


def _depth(scores: Any) -> int:
    """Return how many layers ahead scores reach, (tokens, layers, depth, experts) or None."""
    return 0 if scores is None else int(scores.shape[2])


def unmet(choice: Choice, offer: Offer) -> str:
    """Say which need of a policy is not met, and what to do; nothing if all are."""
    offer = replace(offer, model=bool(choice.weights_file))
    for name in choice.needs:
        need = NEEDS[name]
        if not need.met(offer, choice.ahead):
            return f"needs {need.text}: {choice.entry.axis} {choice.spelled}; {need.remedy}"
    return ""


def shown(needs: Iterable[str]) -> Callable[[Chunk], Chunk]:
    """Return what blanks the columns of a chunk that a policy of these needs may not see."""
    hidden = [name for need in NEEDS if need not in needs for name in NEEDS[need].fills]

    def show(chunk: Chunk) -> Chunk:
        return chunk._replace(**{name: getattr(chunk, name)[:0] for name in hidden})

    return show
