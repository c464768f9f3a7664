"""Host: a missing expert that few tokens chose is computed where it is, in host memory.

Its activations cross the link instead of its weights; it takes no slot and nothing leaves for it. A
prefill brings many tokens to every expert, for which the host is too slow: those are fetched. What
is resident then is what prefills brought, or, with `--evict static`, the hot set that Fiddler (K.
Kamahori et al., arXiv:2402.07033) places beforehand. Computed in the same precision: lossless.
"""

from __future__ import annotations

from typing import NamedTuple

from specmd.policy import FETCH, HOST, Core, Count, Event, Rows, World, place_of, policy


@policy("host", axis="miss", source="Fiddler, arXiv:2402.07033", compiled=True)
class Host(NamedTuple):
    """Asks the host for experts of few tokens."""

    tokens: int

    @classmethod
    def create(cls, world: World, *, tokens: Count = 1) -> Host:
        """Build it; `tokens` is how many an expert may have to be computed on the host."""
        return cls(tokens)

    def answer(self, key: int, event: Event, rows: Rows, core: Core) -> int:
        """Compute on the host what has few tokens."""
        return HOST if event.tokens[place_of(event, key)] <= self.tokens else FETCH
