"""The host tier of a live cache: the decisions of the simulator's, asked key by key.

Nothing is decided here, as nothing is in `specmd.live.core`: a key whose transfer begins is looked
up in a `specmd.core.tier.Tier`, compiled like the simulator's, so its digest is that of a
simulation in which the same keys set out in the same order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from specmd.core.clearance import is_cleared, named
from specmd.core.event import NOBODY, IntArray, World
from specmd.core.hooks import stage
from specmd.core.interpreted import as_lists
from specmd.core.specialise import specialise, specialise_frozen
from specmd.core.state import BYPASS, FORCED, spelled
from specmd.core.tier import Tier, bind_tier, emptied, make_tier, tier_counters
from specmd.policy.registry import Choice
from specmd.runs.policy_metrics import Published, publish

KEY, STEP, PHASE, THERE = range(4)


def ask_tier(tier: Tier, asked: IntArray) -> None:
    """Look the key of a question up, and answer it in place."""
    asked[THERE] = 1 if stage(tier, asked[KEY], asked[STEP], asked[PHASE]) else 0


class Answer(NamedTuple):
    """Whether a key was in the host, and the host slot it has now; None if it was refused one."""

    there: bool
    slot: int | None


class HostTier:
    """The decisions of one host tier.

    Args:
        world: its pools.
        evict: its policy.
        interpreted: run it as Python even where it could be compiled.

    """

    def __init__(self, world: World, evict: Choice, *, interpreted: bool = False) -> None:
        self.world, self.evict = world, evict
        self._admission = BYPASS if evict.bypasses else FORCED
        self._compiled = evict.compiled and not interpreted
        self._asked: Any = np.zeros(4, np.int64)
        self.restart()

    def restart(self) -> None:
        """Forget everything: contents, counts, digest."""
        self._bind(self._fresh())

    def reset(self) -> None:
        """Empty the tier; counters, digest and what was ever read are kept."""
        self._bind(emptied(self._tier, self._fresh()))

    def _fresh(self) -> Any:
        tier = make_tier(self.world, self.evict, self._admission)
        return tier if self._compiled else as_lists(tier)

    def _bind(self, tier: Any) -> None:
        self._tier = tier
        bindings = bind_tier(self.evict)
        if self._compiled:
            checked = not is_cleared(self.evict.cls)
            state = (tier, self._asked)
            ask = specialise_frozen(ask_tier, bindings, state, checked)
            self._ask = named(ask, self.evict.cls)
        else:
            run = specialise(ask_tier, bindings, compiled=False)
            self._ask = lambda: run(self._tier, self._asked)

    def ask(self, key: int, step: int, phase: int) -> Answer:
        """Look a key up whose transfer begins; a key that is not there is admitted.

        Args:
            key: the expert.
            step: number of the forward pass in which the transfer was asked for.
            phase: PREFILL or DECODE.

        """
        self._asked[:3] = key, step, phase
        self._ask()
        slot = int(self._tier.core.slot[key])
        return Answer(bool(self._asked[THERE]), None if slot == int(NOBODY) else slot)

    @property
    def slots(self) -> int:
        """Slots of all pools."""
        return int(self.world.capacity.sum())

    @property
    def counters(self) -> npt.NDArray[np.int64]:
        """Counters (2 phases, layers, NUM_COUNTERS), see `specmd.core.state`."""
        return tier_counters(self._tier)

    def published(self) -> Published:
        """Ask the policy what it publishes, and whether its books add up."""
        name = self.evict.entry.name
        return publish("host_evict", name, self._tier.policy, self._tier.core)

    @property
    def digest(self) -> str:
        """Hash of all decisions so far."""
        return spelled(self._tier.core)
