"""What an expert computes, and in which order experts are summed.

The product of one expert is that of the model's own code: project up, gate, project down, weigh.
The sum over experts is made in a fixed order, experts ascending, from products kept until all are
there: floating-point addition is not associative, so summing in order of arrival would make logits
depend on the speed of a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

Product = Callable[[Any, dict[str, Tensor], Tensor], Tensor]


def expert_product(experts: Any, weights: dict[str, Tensor], hidden: Tensor) -> Tensor:
    """One expert applied to its tokens.

    Args:
        experts: the `experts` module, for its flags and its gate.
        weights: tensors of the expert by the names of the module's parameters.
        hidden: (t, H).

    Returns:
        (t, H), not yet weighted by the router.

    """
    return normed(experts, matrix_product(experts, weights, hidden))


def matrix_product(experts: Any, weights: dict[str, Tensor], hidden: Tensor) -> Tensor:
    """One expert applied to its tokens, without the norm that may follow; as `expert_product`."""
    up = "gate_up_proj" if experts.has_gate else "up_proj"
    projected = _project(experts, weights, up, hidden)
    gated = experts._apply_gate(projected) if experts.has_gate else experts.act_fn(projected)
    return _project(experts, weights, "down_proj", gated)


def normed(experts: Any, product: Tensor) -> Tensor:
    """Apply the norm that follows each expert, where there is one."""
    result: Tensor = experts.post_expert_norm(product) if has_post_norm(experts) else product
    return result


def has_post_norm(experts: nn.Module) -> bool:
    """Whether a norm follows each expert."""
    return bool(getattr(experts, "has_post_expert_norm", False))


def _project(experts: Any, weights: dict[str, Tensor], name: str, hidden: Tensor) -> Tensor:
    bias = weights[f"{name}_bias"] if experts.has_bias else None
    if experts.is_transposed:
        product = hidden @ weights[name]
        return product if bias is None else product + bias
    return linear(hidden, weights[name], bias)


class Grouping:
    """The tokens of one layer's pass, grouped by the expert they chose, on the device.

    Args:
        ids: (T, K) chosen experts; those outside 0..experts-1 are nobody's.
        weights: (T, K) of the router.
        counts: (experts,) on the host: live choices of each expert.
        live: (T,) which tokens count, on the host, or None for all.

    """

    def __init__(
        self, ids: Tensor, weights: Tensor, counts: list[int], live: Tensor | None
    ) -> None:
        chosen = ids.reshape(-1)
        if live is not None:
            # Choices of padding sort behind all experts.
            dead = (~live).to(ids.device, non_blocking=True).repeat_interleave(ids.shape[1])
            chosen = chosen.masked_fill(dead, len(counts))
        order = torch.argsort(chosen, stable=True)
        self._token = torch.div(order, ids.shape[1], rounding_mode="floor")
        self._weight = weights.reshape(-1)[order].unsqueeze(-1)
        ends = torch.tensor(counts).cumsum(0).tolist()
        self._bounds = list(zip([0, *ends[:-1]], ends, strict=True))

    def tokens(self, expert: int) -> Tensor:
        """(t,) tokens of an expert, on the device."""
        first, last = self._bounds[expert]
        return self._token[first:last]

    def weights(self, expert: int) -> Tensor:
        """(t, 1) router weights of an expert's tokens."""
        first, last = self._bounds[expert]
        return self._weight[first:last]


def weighted_product(
    experts: nn.Module, weights: dict[str, Tensor], hidden: Tensor, group: Grouping, expert: int
) -> Tensor:
    """Product of one expert for its tokens, weighted, in the type of `hidden`; (t, H)."""
    product = expert_product(experts, weights, hidden[group.tokens(expert)])
    return weigh(product, hidden, group, expert)


def weigh(product: Tensor, hidden: Tensor, group: Grouping, expert: int) -> Tensor:
    """Weight the product of an expert by the router, in the type of `hidden`; (t, H)."""
    return (product * group.weights(expert)).to(hidden.dtype)


def sum_in_order(hidden: Tensor, products: dict[int, Tensor], group: Grouping) -> Tensor:
    """Sum the products of all experts, ascending; (T, H)."""
    total = torch.zeros_like(hidden)
    for expert in sorted(products):
        total.index_add_(0, group.tokens(expert), products[expert])
    return total
