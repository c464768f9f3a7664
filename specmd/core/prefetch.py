"""Prefetchers: predictions of coming demand, made at each event, best first.

A prefetcher sees what has been routed so far and proposes keys; it does not see the cache. So a
replay can let it run ahead over a stretch of events (`plan`) and hand its proposals to the
residency core, which drops the redundant ones; the live engine asks it event by event.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from specmd.core.event import Event, FloatArray, IntArray, KeyArray, event_at
from specmd.core.hooks import predict
from specmd.core.state import Chunk


class Proposals(NamedTuple):
    """Proposals of the events so far: `count[0]` of them, of which the last event's are open."""

    key: KeyArray
    due: IntArray  # clock of the event the key is meant for
    score: FloatArray  # larger is fetched first
    count: IntArray  # type: ignore[assignment]  # [proposals, first of the open event]


def make_proposals(space: int) -> Proposals:
    """Build room for so many proposals."""
    keys, clocks = np.zeros(space, np.uint32), np.zeros(space, np.int64)
    return Proposals(keys, clocks, np.zeros(space), np.zeros(2, np.int64))


NO_SCORES: npt.NDArray[np.float32] = np.zeros((0, 0, 0, 0), np.float32)
NO_LOGITS: npt.NDArray[np.float32] = np.zeros((0, 0, 0), np.float32)
NO_IDS: IntArray = np.zeros((0, 0, 0), np.int64)
NOBODYS: IntArray = np.zeros(0, np.int64)


class Outlook(NamedTuple):
    """What lies beyond the event itself, for the prefetchers that declared the need.

    What is of a token and a layer may be read of the present event and of those before it: rows of
    later steps, and later layers of this step, are there in a simulation and not in a live run.
    `draft` may be read of all layers of the present step.
    """

    index: int  # type: ignore[assignment]  # of the event in its stretch
    start: (
        IntArray  # (events ahead + 1,) where each coming event's keys begin; empty unless `future`
    )
    keys: KeyArray
    token_start: IntArray  # (steps + 1,) tokens of each step, from the stretch's first step on
    first_step: int
    lookahead: npt.NDArray[np.float32]  # (tokens, layers, depth, experts): need `lookahead`
    renormalised: npt.NDArray[np.float32] = NO_SCORES  # the same, re-normalised: `renormalised`
    logits: npt.NDArray[np.float32] = NO_LOGITS  # (tokens, layers, experts): need `logits`
    # (tokens, layers, width) what a draft model chose before the step began, -1 none: need `draft`
    draft: IntArray = NO_IDS
    # (tokens, layers, top_k) what each token chose, ascending, -1 none, and whose the token is,
    # (tokens,): need `choices`
    ids: IntArray = NO_IDS
    request: IntArray = NOBODYS


def propose(proposals: Proposals, key: int, due: int, score: float) -> None:
    """Propose a key for the event at clock `due`; a key proposed twice keeps its better score."""
    last = proposals.count[0]
    for i in range(proposals.count[1], last):
        if proposals.key[i] == key:
            if score > proposals.score[i]:
                proposals.score[i] = score
                proposals.due[i] = due
            return
    proposals.key[last] = key
    proposals.due[last] = due
    proposals.score[last] = score
    proposals.count[0] = last + 1


def propose_votes(
    proposals: Proposals, votes: FloatArray, event: Event, ahead: int, scale: float, base: float
) -> None:
    """Propose the experts, of the layer so many `ahead`, that have votes, (experts,).

    Their score is `base + scale * votes`.
    """
    first = (event.layer + ahead) * event.num_experts
    for expert in range(len(votes)):
        if votes[expert] > 0.0:
            propose(proposals, first + expert, event.clock + ahead, base + scale * votes[expert])


def tokens_of(event: Event, outlook: Outlook) -> tuple[int, int]:
    """Return where the tokens of the event's step begin and end in the outlook's arrays."""
    step = event.step - outlook.first_step
    return outlook.token_start[step], outlook.token_start[step + 1]


def rank_proposals(proposals: Proposals) -> None:
    """Sort the open event's proposals by falling score, then ascending key."""
    first = proposals.count[1]
    for i in range(first + 1, proposals.count[0]):
        key, due, score = proposals.key[i], proposals.due[i], proposals.score[i]
        j = i
        while j > first and (
            proposals.score[j - 1] < score
            or (proposals.score[j - 1] == score and proposals.key[j - 1] > key)
        ):
            proposals.key[j] = proposals.key[j - 1]
            proposals.due[j] = proposals.due[j - 1]
            proposals.score[j] = proposals.score[j - 1]
            j -= 1
        proposals.key[j], proposals.due[j], proposals.score[j] = key, due, score


def plan(
    prefetcher: Any,
    chunk: Chunk,
    outlook: Outlook,
    none: IntArray,
    begin: int,
    starts: IntArray,
    proposals: Proposals,
) -> int:
    """Let a prefetcher run over events from `begin` on; return where its space ran out."""
    for index in range(begin, len(chunk.layer)):
        if len(proposals.key) - proposals.count[0] < chunk.num_layers * chunk.num_experts:
            return index
        here = Outlook(
            index,
            outlook.start,
            outlook.keys,
            outlook.token_start,
            outlook.first_step,
            outlook.lookahead,
            outlook.renormalised,
            outlook.logits,
            outlook.draft,
            outlook.ids,
            outlook.request,
        )
        proposals.count[1] = proposals.count[0]
        predict(prefetcher, event_at(chunk, index, none), here, proposals)
        rank_proposals(proposals)
        starts[index + 1] = proposals.count[0]
    return len(chunk.layer)
