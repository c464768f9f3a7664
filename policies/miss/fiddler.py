"""Fiddler: each missing expert goes where it is done sooner, the link or the host.

K. Kamahori et al., "Fiddler: CPU-GPU orchestration for fast inference of mixture-of-experts
models", arXiv:2402.07033, section 3: the host computes an expert of n tokens in `host` n, the link
brings it in `link`; each expert is decided by itself. The defaults are the constants of its code.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import Field

from specmd.policy import FETCH, HOST, Core, Event, Rows, World, place_of, policy

Time = Annotated[float, Field(gt=0)]


@policy("fiddler", axis="miss", source="Fiddler, arXiv:2402.07033", compiled=True)
class Fiddler(NamedTuple):
    """Times in any unit: only their ratio counts."""

    host: float
    link: float

    @classmethod
    def create(cls, world: World, *, host: Time = 7.0, link: Time = 70.0) -> Fiddler:
        """Compare `host` for each token with `link`."""
        return cls(host, link)

    def answer(self, key: int, event: Event, rows: Rows, core: Core) -> int:
        """Take the shorter way."""
        tokens = event.tokens[place_of(event, key)]
        return HOST if self.host * tokens <= self.link else FETCH
