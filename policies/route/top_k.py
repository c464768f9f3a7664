"""Top-k: fewer experts a token than the model was trained with. The control for what adapts.

The fixed reduction that dynamic skipping is compared with ("Not all experts are equal", X. Lu et
al., arXiv:2402.14800).
"""

from __future__ import annotations

from typing import NamedTuple

from specmd.policy import Core, Event, Rows, Width, World, chosen, execute_only, policy


@policy(
    "top_k",
    axis="route",
    source="arXiv:2402.14800",
    needs=["weights"],
    compiled=True,
    lossy=True,
)
class TopK(NamedTuple):
    """How many experts a token executes."""

    keep: int

    @classmethod
    def create(cls, world: World, *, keep: Width = 0) -> TopK:
        """Execute the best `keep` (0: one less than the model's k)."""
        return cls(keep or max(1, world.top_k - 1))

    def route(self, event: Event, rows: Rows, core: Core) -> None:
        """End each token's choice early."""
        for token in range(rows.tokens[0]):
            execute_only(rows, token, min(self.keep, chosen(rows, token)))
