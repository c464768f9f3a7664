"""How fast a link is before anything else uses it: a card in a slow slot shows at once."""

from __future__ import annotations

import time

from specmd.live.links.link import COPY, Link
from specmd.live.slots import Slots
from specmd.live.stores.store import ExpertStore

PROBE_BYTES = 64 << 20
MOST_COPIES = 64


def time_link(
    link: Link, store: ExpertStore, slots: Slots, *, chunk_bytes: int, timeout_s: float
) -> float:
    """Bytes per second of chunks of the largest experts into a staging slot, which is nobody's yet.

    Raises:
        SpecmdError: the device did not finish within `timeout_s`.

    """
    layouts, slot = slots.layouts, slots.cached
    keys = [k for k in range(store.num_keys) if layouts.of(k).blob_bytes == layouts.largest_bytes]
    size = min(chunk_bytes, layouts.largest_bytes)
    took_s = 0.0
    for count in (2, max(2, min(MOST_COPIES, PROBE_BYTES // size))):  # the first pages memory in
        began_s = time.perf_counter()
        for turn in range(count):
            key = keys[turn % len(keys)]
            link.copy(slot, store.read(key, 0, size), 0, size, store.is_pinned(key))
        link.synchronise(link.record(COPY), timeout_s)
        took_s = time.perf_counter() - began_s
    return count * size / took_s
