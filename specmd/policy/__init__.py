"""The one door for whoever writes a policy: what it is told, what it may use, how it is declared.

A policy file imports from here and from nowhere else in SpecMD.
"""

from typing import Annotated

from pydantic import Field

from specmd.core.binding import candidates, may_leave
from specmd.core.event import (
    DECODE,
    NEVER,
    NOBODY,
    PREFILL,
    Event,
    FloatArray,
    IntArray,
    KeyArray,
    Training,
    World,
    cycles_since,
)
from specmd.core.order.blocks import (
    Blocks,
    enter,
    largest_evictable,
    leave,
    make_blocks,
    set_value,
)
from specmd.core.order.chance import below, fraction, mix
from specmd.core.order.heap import Heap, drop, least_evictable, make_heap, put, settle_rank
from specmd.core.order.ladder import Ladder, climb, make_ladder, step_off, step_on
from specmd.core.order.lists import (
    Lists,
    back,
    front,
    last_evictable,
    make_lists,
    place_ordered,
    push_back,
    push_front,
    splice_front,
    unlink,
)
from specmd.core.order.scores import Scores, join, least_scored, part
from specmd.core.prefetch import Outlook, Proposals, propose
from specmd.core.rows import (
    DROP,
    FETCH,
    HOST,
    LOWBIT,
    NO_EXPERT,
    Rows,
    chosen,
    execute,
    execute_only,
    executes,
    is_ready,
    is_there,
    leave_out,
    needs_it,
    pairs,
    place_of,
    probability,
    rank_experts,
    replace,
    share,
)
from specmd.core.state import EMPTY, LOADING, READY, Core, evictable
from specmd.policy.allocation import (
    best_quotas,
    demanded,
    give_slots,
    lru_misses,
    share_slots,
)
from specmd.policy.declaration import policy
from specmd.policy.schedule import Schedule
from specmd.policy.weights import ModelFile, load_weights

Count = Annotated[int, Field(ge=1)]
Width = Annotated[int, Field(ge=0)]  # 0: as many as the policy's docstring says
Share = Annotated[float, Field(ge=0, le=1)]

__all__ = [
    "DECODE",
    "DROP",
    "EMPTY",
    "FETCH",
    "HOST",
    "LOADING",
    "LOWBIT",
    "NEVER",
    "NOBODY",
    "NO_EXPERT",
    "PREFILL",
    "READY",
    "Blocks",
    "Core",
    "Count",
    "Event",
    "FloatArray",
    "Heap",
    "IntArray",
    "KeyArray",
    "Ladder",
    "Lists",
    "ModelFile",
    "Outlook",
    "Proposals",
    "Rows",
    "Schedule",
    "Scores",
    "Share",
    "Training",
    "Width",
    "World",
    "back",
    "below",
    "best_quotas",
    "candidates",
    "chosen",
    "climb",
    "cycles_since",
    "demanded",
    "drop",
    "enter",
    "evictable",
    "execute",
    "execute_only",
    "executes",
    "fraction",
    "front",
    "give_slots",
    "is_ready",
    "is_there",
    "join",
    "largest_evictable",
    "last_evictable",
    "least_evictable",
    "least_scored",
    "leave",
    "leave_out",
    "load_weights",
    "lru_misses",
    "make_blocks",
    "make_heap",
    "make_ladder",
    "make_lists",
    "may_leave",
    "mix",
    "needs_it",
    "pairs",
    "part",
    "place_of",
    "place_ordered",
    "policy",
    "probability",
    "propose",
    "push_back",
    "push_front",
    "put",
    "rank_experts",
    "replace",
    "set_value",
    "settle_rank",
    "share",
    "share_slots",
    "splice_front",
    "step_off",
    "step_on",
    "unlink",
]
