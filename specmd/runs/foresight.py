"""How good a prediction is, whatever became of it: proposals against what was demanded.

A key is proposed *for* an event, the one at the clock it is due. Recall is the share of the keys an
event demanded that were proposed for it by then, precision the share of what was proposed for it
that it demanded; both over all counted events, each key of an event once. They depend on no cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from specmd.core.state import Chunk
from specmd.runs.counters import share
from specmd.runs.run import Metrics

Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[Any]


class Foreseen(NamedTuple):
    """Pairs of an event and a key: demanded, proposed, and both."""

    demanded: int = 0
    proposed: int = 0
    both: int = 0

    def metrics(self) -> Metrics:
        """Return recall and precision."""
        return {
            "prediction_recall": share(self.both, self.demanded),
            "prediction_precision": share(self.both, self.proposed),
        }


class Foresight:
    """Counts the proposals for events that are noted one stretch after another.

    `num_keys` are the keys of the model. Proposals for an event that never comes do not count.
    """

    def __init__(self, num_keys: int) -> None:
        self._num_keys = num_keys
        self._due = self._key = np.zeros(0, np.int64)  # proposals for events not noted so far
        self._found = Foreseen()
        self._kept: list[tuple[int, Any, Any, Any]] = []

    @property
    def found(self) -> Foreseen:
        """What has been counted so far."""
        for clock, keys, proposed, due in self._kept:
            ends = np.array([0, len(keys)]), np.array([0, len(proposed)])
            self.add(clock, ends[0], keys, ends[1], proposed, due)
        self._kept = []
        return self._found

    def keep(self, chunk: Chunk) -> None:
        """Note the one event of a chunk whose arrays will be filled anew; counted when asked."""
        made = int(chunk.prefetch_start[1])
        demanded, proposed = chunk.keys[: chunk.start[1]], chunk.prefetch_keys[:made]
        due = chunk.prefetch_due[:made].copy()
        self._kept.append((int(chunk.clock[0]), demanded.copy(), proposed.copy(), due))

    def note(self, chunk: Chunk, *, counts: bool = True) -> None:
        """Note the events of a chunk and what was proposed in each; `counts` False is a warm-up."""
        self.add(
            int(chunk.clock[0]),
            chunk.start[: len(chunk.layer) + 1],
            chunk.keys,
            chunk.prefetch_start,
            chunk.prefetch_keys,
            chunk.prefetch_due,
            counts=counts,
        )

    def add(
        self,
        clock: int,
        start: Ints,
        keys: Keys,
        proposed_start: Ints,
        proposed: Keys,
        due: Ints,
        *,
        counts: bool = True,
    ) -> None:
        """Note events from `clock` on.

        Args:
            clock: of the first.
            start: (events + 1,) where the keys of each begin.
            keys: demanded keys.
            proposed_start: (events + 1,) where the proposals made in each begin.
            proposed: their keys.
            due: clock of the event each is meant for.
            counts: False in a warm-up.

        """
        events, stop = len(start) - 1, int(proposed_start[-1])
        made = clock + np.repeat(np.arange(events), np.diff(proposed_start))
        ahead = due[:stop] >= made  # what is due in the past is for nobody
        due = np.append(self._due, due[:stop][ahead])
        key = np.append(self._key, proposed[:stop][ahead])
        now = due < clock + events
        self._due, self._key = due[~now], key[~now]
        if not counts:
            return
        marked = np.zeros((events, self._num_keys), np.bool_)
        marked[due[now] - clock, key[now]] = True
        demanded = np.repeat(np.arange(events), np.diff(start)), keys[: start[-1]]
        before = self._found
        self._found = Foreseen(
            before.demanded + int(start[-1]),
            before.proposed + int(np.count_nonzero(marked)),
            before.both + int(np.count_nonzero(marked[demanded])),
        )
