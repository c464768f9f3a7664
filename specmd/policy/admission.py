"""Who says whether a missed key enters: the admission policy, unless eviction has a say."""

from __future__ import annotations

from specmd.core.state import BYPASS, FORCED, GATED
from specmd.policy.registry import HOOKS, Choice


def admitting(admission: Choice, evict: Choice) -> tuple[int, Choice | None]:
    """Return the admission of a cache, see `specmd.core.state`, and the policy that is asked.

    None is where the eviction policy alone decides, or nobody.
    """
    if evict.bypasses or admission.bypasses:
        return BYPASS, None
    if any(hasattr(admission.cls, hook) for hook in HOOKS["admission"]):
        return GATED, admission
    return FORCED, None
