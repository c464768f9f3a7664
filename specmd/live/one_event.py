"""What the live engine runs of the core and of a prefetcher: one event, as it is routed.

The same functions a replay calls for every event of a trace, in the subset of Python that numba
compiles. All that stays the same from event to event comes first, so that it can be held (see
`specmd.core.frozen_args`).
"""

from __future__ import annotations

from typing import Any

from specmd.core.event import Event, IntArray
from specmd.core.prefetch import Outlook, Proposals, predict, rank_proposals
from specmd.core.serve import Chunk, Core, serve
from specmd.live.commands import WRITTEN, Commands


def serve_event(
    core: Core,
    policy: Any,
    link: Commands,
    chunk: Chunk,
    num_layers: int,
    experts: int,
    clock: int,
) -> int:
    """Serve the one event of a chunk; return how many commands the link has written."""
    event = Event(
        clock,
        chunk.step[0],
        chunk.layer[0],
        chunk.phase[0],
        chunk.start[0],
        chunk.start[1],
        chunk.keys,
        chunk.tokens,
        chunk.gates,
        num_layers,
        experts,
        chunk.next_use,
    )
    serve(core, policy, link, chunk, 0, event)
    return int(link.count[WRITTEN])


def plan_event(
    prefetcher: Any,
    chunk: Chunk,
    token_start: IntArray,
    proposals: Proposals,
    num_layers: int,
    experts: int,
    clock: int,
    lookahead: Any,
) -> None:
    """Let a prefetcher see the one event of a chunk, and make its proposals the chunk's.

    Args:
        prefetcher: compiled or not.
        chunk: of one event.
        token_start: (2,) 0 and the tokens of the step.
        proposals: emptied, then made.
        num_layers: of the model.
        experts: of a layer.
        clock: of the event.
        lookahead: (tokens, layers, depth, experts) scores.

    """
    event = Event(
        clock,
        chunk.step[0],
        chunk.layer[0],
        chunk.phase[0],
        chunk.start[0],
        chunk.start[1],
        chunk.keys,
        chunk.tokens,
        chunk.gates,
        num_layers,
        experts,
        chunk.next_use,
    )
    outlook = Outlook(0, chunk.start, chunk.keys, token_start, event.step, lookahead)
    proposals.count[0] = 0
    proposals.count[1] = 0
    predict(prefetcher, event, outlook, proposals)
    rank_proposals(proposals)
    chunk.prefetch_start[1] = proposals.count[0]
