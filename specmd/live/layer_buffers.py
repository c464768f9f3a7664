"""Two layers' worth of slots beside the cache, for prefills.

A long prompt wants nearly every expert of every layer, once. Letting it through the cache wipes the
working set of the decode; nothing needs predicting either, because the next layer will want nearly
all. So while one layer computes out of one half of these slots, the next layer's experts are copied
into the other half. An expert's slot is fixed: half `layer % 2`, place `expert`.
"""

from __future__ import annotations

from specmd.live.transfer import Transfer


class LayerBuffers:
    """Which copies are under way ahead of their layer.

    Args:
        first_slot: number of the first of the 2 * experts slots.
        layers: L.
        experts: E.

    """

    def __init__(self, first_slot: int, layers: int, experts: int) -> None:
        self._first, self._layers, self._experts = first_slot, layers, experts
        self._ahead: dict[int, Transfer] = {}

    def slot_of(self, key: int) -> int:
        """Slot of a key."""
        layer, expert = divmod(key, self._experts)
        return self._first + layer % 2 * self._experts + expert

    def next_layer(self, key: int) -> range:
        """Keys of the layer after a key's; empty after the last."""
        layer = key // self._experts + 1
        if layer == self._layers:
            return range(0)
        return range(layer * self._experts, (layer + 1) * self._experts)

    def put(self, key: int, transfer: Transfer) -> None:
        """Note a copy ahead."""
        self._ahead[key] = transfer

    def take(self, key: int) -> Transfer | None:
        """Return the copy of a key that is demanded now, if there is one."""
        return self._ahead.pop(key, None)

    def drop_all(self) -> list[Transfer]:
        """Forget all copies ahead, and return them."""
        dropped = list(self._ahead.values())
        self._ahead.clear()
        return dropped
