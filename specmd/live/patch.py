"""Putting the engine into a transformers model, and taking it out again.

transformers 5 lets the forward of every `experts` module be chosen by name in a registry. The
engine registers a name of its own and gives each `experts` module a copy of its configuration that
asks for it, so that another model built from the same configuration is left alone. The experts'
parameters become `meta` tensors, which hold no memory: their values live in the store alone. The
model's own `Parameter` objects are kept, emptied, and get their values back on the way out; an
optimizer or a tied module that knows them notices nothing.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from specmd.errors import SpecmdError
from specmd.live.stores.store import ExpertStore, HostStore
from specmd.models.layout import Layouts, expert_tensors
from specmd.models.moe import MoeModel

ExpertsForward = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
_numbers = itertools.count()


class Patch:
    """The changes made to one model; `remove` undoes all that were made, however many.

    Args:
        model: the model.
        moe: its MoE layers.
        layouts: of the experts.
        device: where the dense weights go; None leaves them where they are.

    """

    def __init__(
        self, model: nn.Module, moe: MoeModel, layouts: Layouts, device: torch.device | None
    ) -> None:
        self._model, self._moe, self._layouts, self._device = model, moe, layouts, device
        self._name = f"specmd-{next(_numbers)}"
        self._emptied: list[tuple[int, str, nn.Parameter, torch.device]] = []
        self._configs: list[tuple[Any, Any]] = []
        self._moved: list[tuple[Tensor, torch.device]] = []
        self._refusing: list[RemovableHandle] = []
        self._registered = False
        self._shadowed: Any = None
        self._wrapped = False

    def empty_experts(self, store: ExpertStore) -> None:
        """Move the experts' values into the store, layer by layer; state dicts lack them then."""
        for number, layer in enumerate(self._moe.layers):
            experts: Any = layer.experts
            self._refusing += [
                experts.register_state_dict_pre_hook(_refuse_state),
                experts.register_load_state_dict_pre_hook(_refuse_state),
            ]
            if isinstance(store, HostStore):
                store.take_layer(layer.experts)
            for name, parameter in expert_tensors(layer.experts).items():
                self._emptied.append((number, name, parameter, parameter.device))
                absent = torch.empty_like(parameter, device="meta")
                layer.experts._parameters[name] = nn.Parameter(absent, requires_grad=False)
                if not parameter.is_meta:
                    parameter.data = parameter.data.new_empty(0)

    def move_dense(self) -> None:
        """Bring everything that is not an expert to the device."""
        if self._device is None:
            return
        tensors: list[Tensor] = [*self._model.parameters(), *self._model.buffers()]
        for tensor in tensors:
            if not tensor.is_meta and tensor.device != self._device:
                self._moved.append((tensor, tensor.device))
                _move(tensor, tensor.detach().to(self._device))

    def plug_in(self, forward: ExpertsForward) -> None:
        """Let the model's experts be computed by `forward(experts, hidden, ids, weights)`."""
        from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

        # The registry's local table: `register` would write to the one that nothing deletes from.
        ALL_EXPERTS_FUNCTIONS[self._name] = forward
        self._registered = True
        copies: dict[int, Any] = {}
        for layer in self._moe.layers:
            experts: Any = layer.experts
            config = experts.config
            if id(config) not in copies:
                copies[id(config)] = copy.deepcopy(config)
                copies[id(config)]._experts_implementation = self._name
            self._configs.append((experts, config))
            experts.config = copies[id(config)]

    def wrap_generate(self, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Shadow `generate` on the instance."""
        original = getattr(self._model, "generate", None)
        if original is not None:
            self._shadowed = self._model.__dict__.get("generate")
            self._model.__dict__["generate"] = wrap(original)
            self._wrapped = True

    def remove(self, store: ExpertStore | None) -> None:
        """Undo everything, in reverse; safe to call twice."""
        from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

        if self._wrapped:
            self._model.__dict__.pop("generate", None)
            if self._shadowed is not None:
                self._model.__dict__["generate"] = self._shadowed
            self._wrapped = False
        while self._configs:
            experts, config = self._configs.pop()
            experts.config = config
        if self._registered:
            ALL_EXPERTS_FUNCTIONS.pop(self._name)
            self._registered = False
        while self._moved:
            tensor, device = self._moved.pop()
            _move(tensor, tensor.detach().to(device))
        while self._refusing:
            self._refusing.pop().remove()
        while self._emptied:
            number, name, parameter, device = self._emptied[-1]
            assert store is not None
            self._refill(store, number, name, parameter, device)
            self._emptied.pop()

    def _refill(
        self,
        store: ExpertStore,
        number: int,
        name: str,
        parameter: nn.Parameter,
        device: torch.device,
    ) -> None:
        layer, layout = self._moe.layers[number], self._layouts.of_layer[number]
        piece = next(p for p in layout.pieces if p.name == name)
        experts, size = self._moe.num_experts, layout.blob_bytes
        if device.type != "meta":
            full = torch.empty((experts, *piece.shape), dtype=piece.dtype)
            for expert in range(experts):
                full[expert].copy_(piece.view(store.read(number * experts + expert, 0, size)))
            _move(parameter, full.to(device))
        layer.experts._parameters[name] = parameter


def _refuse_state(*_arguments: Any) -> None:
    raise SpecmdError(
        "the experts of an offloaded model are not in its parameters: leave the offload block "
        "before state_dict, save_pretrained or load_state_dict"
    )


def _move(tensor: Tensor, values: Tensor) -> None:
    """Let a parameter or buffer have other values, elsewhere, and stay the object it is.

    `tensor.data = values` is refused between the host and devices that joined PyTorch from outside
    its own source; what the two objects hold is then swapped, as `nn.Module.to` can do too.
    """
    if torch._has_compatible_shallow_copy_type(tensor, values):
        tensor.data = values
        return
    if isinstance(tensor, nn.Parameter):
        values = nn.Parameter(values, requires_grad=tensor.requires_grad)
    values.__dict__.update(tensor.__dict__)  # what others noted on it stays
    swap: Any = torch.utils.swap_tensors
    swap(tensor, values)
