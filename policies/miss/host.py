"""Host: a missing expert that few tokens chose is computed where it is, in host memory.

Its activations cross the link instead of its weights; it takes no slot and nothing leaves for it. A
prefill brings many tokens to every expert, for which the host is too slow: those are fetched. What
is resident then is what prefills brought, or, with `--evict static`, the hot set that Fiddler (K.
Kamahori et al., arXiv:2402.07033) places beforehand. Computed in the same precision: lossless.
"""

from __future__ import annotations

from specmd.policy import MissHandling, policy


@policy("host", axis="miss", source="Fiddler, arXiv:2402.07033")
class Host:
    """Asks the host for experts of few tokens."""

    @classmethod
    def create(cls, *, tokens: int = 1) -> MissHandling:
        """Build it; `tokens` is how many an expert may have to be computed on the host."""
        if tokens < 1:
            raise ValueError(f"tokens is {tokens}: give 1 or more")
        return MissHandling(blocks=False, host_tokens=tokens)
