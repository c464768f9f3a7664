"""What the gate of a later layer would say already now.

The residual stream changes little from one layer to the next, so the gate of layer l+d, applied to
the input of layer l's gate, predicts much of what layer l+d will choose. A prefetcher that uses
this needs no training, only these scores.

Two variants are recorded. *Raw* feeds layer l's gate input as it is. But that input has passed
layer l's own norm, whose learnt weight w_l scales every channel; layer l+d's gate was trained on
channels scaled by w_{l+d}. *Renormalised* undoes the one and applies the other:
x * w_{l+d} / w_l (with biases where the norm has them). The root-mean-square itself cancels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from specmd.models.moe import MoeLayer, router_logits

_SMALLEST_SCALE = 1e-6


class Lookahead:
    """Scores of the gates of the next `depth` MoE layers, for every layer of a model.

    Attributes:
        depth: D; 0 computes nothing.
        has_norms: whether the renormalised variant exists (every layer's norm was found).

    """

    def __init__(self, layers: tuple[MoeLayer, ...], depth: int) -> None:
        self.depth = min(depth, len(layers) - 1)
        self._gates = [layer.gate for layer in layers]
        norms = [layer.norm for layer in layers]
        self.has_norms = self.depth > 0 and all(norm is not None for norm in norms)
        self._affine = (
            [_affine_of(norm, layers[i].gate) for i, norm in enumerate(norms) if norm is not None]
            if self.has_norms
            else []
        )

    @torch.no_grad()
    def scores(self, layer: int, gate_input: Tensor, experts: int) -> tuple[Tensor, Tensor | None]:
        """Scores seen from `layer`, raw and renormalised.

        Args:
            layer: index among the MoE layers.
            gate_input: (T, H) input of that layer's gate.
            experts: E.

        Returns:
            Two (T, D, E) float32 tensors, NaN where layer + d is past the last layer; the second
            is None if the model's norms were not found.

        """
        shape = (gate_input.shape[0], self.depth, experts)
        raw = torch.full(shape, float("nan"), device=gate_input.device)
        renormalised = torch.full_like(raw, float("nan")) if self.has_norms else None
        plain = None
        if renormalised is not None:
            scale, shift = self._affine[layer]
            plain = (gate_input.float() - shift) / scale
        for distance in range(1, self.depth + 1):
            later = layer + distance
            if later >= len(self._gates):
                break
            raw[:, distance - 1] = self._ask(later, gate_input, experts)
            if renormalised is not None and plain is not None:
                scale, shift = (part.to(plain.device) for part in self._affine[later])
                rescaled = (plain * scale + shift).to(gate_input.dtype)
                renormalised[:, distance - 1] = self._ask(later, rescaled, experts)
        return raw, renormalised

    @torch.no_grad()
    def own(self, layer: int, gate_input: Tensor, experts: int) -> Tensor:
        """Logits of a layer's own gate, (T, E) float32: what it chooses by.

        Args:
            layer: index among the MoE layers.
            gate_input: (T, H) input of that layer's gate.
            experts: E.

        """
        return self._ask(layer, gate_input, experts)

    def _ask(self, layer: int, gate_input: Tensor, experts: int) -> Tensor:
        gate = self._gates[layer]
        device = next(gate.parameters()).device
        weight = getattr(gate, "weight", None)
        if isinstance(weight, Tensor):  # experts of another type than the model's get its input
            gate_input = gate_input.to(weight.dtype)
        # `forward` and not a call: the gate's own hooks, ours included, must not see this.
        logits = router_logits(gate.forward(gate_input.to(device)), experts)
        return logits.to(device=gate_input.device, dtype=torch.float32)


@torch.no_grad()
def _affine_of(norm: nn.Module, gate: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift (H,) that `norm` applies after normalising, found by evaluating it.

    The probe v of alternating +1 and -1 has mean 0 and mean square 1, so RMS and layer norms leave
    it as it is: norm(v) = v * scale + shift and norm(-v) = -v * scale + shift, whatever the class
    does with its weight.
    """
    weight = next(norm.parameters())
    width = weight.shape[-1]
    sign = 1.0 - 2.0 * (torch.arange(width, device=weight.device) % 2)
    probe = torch.stack([sign, -sign]).to(weight.dtype)
    up, down = norm.forward(probe[:, None, :]).float().reshape(2, width)
    scale = (up - down) / (2 * sign)
    tiny = scale.abs() < _SMALLEST_SCALE  # such a channel carries nothing that could be undone
    device = next(gate.parameters()).device
    shift = (up + down) / 2
    return torch.where(tiny, torch.ones_like(scale), scale).to(device), shift.to(device)
