"""From a trained model with zeros to a smaller one: which heads and neurons its masks emptied, and what they leave.

A head says nothing once its value rows or its columns of the output projection are all zero, a neuron once its row of
`ffn_in` or its column of `ffn_out` is. Without value rows a head still puts out a constant (its value bias, as
attention weights sum to one), and so does a neuron without a row (the activation of its bias): constants move into the
next bias, and the smaller model computes what the larger one did.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.anatomy import Layer
from splora.export.cut import cut
from splora.export.plan import Plan


@dataclass(frozen=True)
class Cut:
    """What was cut out of a trained model, and what stays in it as zeros.

    Attributes:
        model: the smaller model.
        plan: heads and neurons that stay, counted in the model as it was.
        whole: all that it had.
        zeros: share of zero weights in the linears of the smaller model, 0 to 1: they cost time all the same.
    """

    model: nn.Module
    plan: Plan
    whole: Plan
    zeros: float

    @property
    def is_smaller(self) -> bool:
        """Whether anything was cut."""
        return self.plan != self.whole


@torch.no_grad()
def cut_zeros(model: nn.Module) -> Cut:
    """Cut out of a bare task model the heads and neurons whose weights are zero; `model` stays as it is."""
    whole, layers = Plan.dense(model), anatomy.layers(model)
    alive = [_Alive.of(layer) for layer in layers]
    plan = Plan.from_masks([of.heads for of in alive], [of.neurons for of in alive])
    smaller = cut(model, plan) if plan != whole else model
    if plan != whole:
        for layer, thinner, of in zip(layers, anatomy.layers(smaller), alive, strict=True):
            for role, constant in _constants(layer, of):
                bias = thinner.linears[role].bias
                bias.add_(constant.to(bias.dtype))  # `cut` has copied it
    return Cut(smaller, plan, whole, zeros_of(smaller))


@dataclass(frozen=True)
class _Alive:
    """Heads (heads,) and neurons (neurons,) of a layer that must stay, bool."""

    heads: Tensor
    neurons: Tensor

    @classmethod
    def of(cls, layer: Layer) -> _Alive:
        weights = {role: linear.weight != 0 for role, linear in layer.linears.items()}
        size = layer.head_size
        rows = weights["value"].any(1).unflatten(0, (-1, layer.rows_of_head("value"))).any(1)
        cols = weights["attention_output"].any(0).unflatten(0, (-1, size)).any(1)
        to_row, to_col = _says_something(layer), weights["ffn_out"].any(0)
        # A constant can only go where there is a bias to take it.
        rows = rows | _stuck(layer, "value", "attention_output")
        if "ffn_gate" not in layer.linears:
            to_row = to_row | _stuck(layer, "ffn_in", "ffn_out")
        return cls(rows & cols, to_row & to_col)


def fullness(layer: Layer) -> tuple[float, float]:
    """How far a layer is from losing a head and a neuron: the share of non-zero weights of its emptiest one, 0 to 1.

    Of value rows or of columns of the output projection (rows of `ffn_in` or columns of `ffn_out`), whichever is less.
    """
    weights = {role: (linear.weight != 0).float() for role, linear in layer.linears.items()}
    size = layer.head_size
    heads = torch.minimum(
        weights["value"].mean(1).unflatten(0, (-1, layer.rows_of_head("value"))).mean(1),
        weights["attention_output"].mean(0).unflatten(0, (-1, size)).mean(1),
    )
    neurons = torch.minimum(weights["ffn_in"].mean(1), weights["ffn_out"].mean(0))
    return float(heads.min()) if len(heads) else 1.0, float(neurons.min()) if len(neurons) else 1.0


def _says_something(layer: Layer) -> Tensor:
    """Neurons (neurons,) that are no constant, bool; behind a gate, that are not zero."""
    rows = layer.linears["ffn_in"].weight.any(1)
    if "ffn_gate" not in layer.linears:
        return rows
    gate, linear = layer.linears["ffn_gate"], layer.linears["ffn_in"]
    constant, at_gate = (torch.zeros_like(rows, dtype=gate.weight.dtype) for _ in range(2))
    constant = linear.bias if linear.bias is not None else constant
    opened = layer.activation(gate.bias if gate.bias is not None else at_gate) != 0
    says: Tensor = (rows | (constant != 0)) & (gate.weight.any(1) | opened)
    return says


def _stuck(layer: Layer, before: str, after: str) -> Tensor:
    """Units whose constant could not move on: the next linear has no bias."""
    units = layer.heads if before == "value" else layer.neurons
    missing = layer.linears[after].bias is None and layer.linears[before].bias is not None
    return torch.full((units,), missing, device=layer.linears[before].weight.device)


def _constants(layer: Layer, alive: _Alive) -> Iterator[tuple[str, Tensor]]:
    """(role, what its bias gains, (hidden,)) for what is removed and still puts out a constant."""
    for role, before, gone in (
        ("attention_output", "value", ~alive.heads),
        ("ffn_out", "ffn_in", ~alive.neurons),
    ):
        after, bias = layer.linears[role], layer.linears[before].bias
        if after.bias is None:  # nothing that would need one was taken
            continue
        if (bias is None and before == "value") or (before == "ffn_in" and "ffn_gate" in layer.linears):
            continue
        gone = gone.repeat_interleave(layer.rows_of_head("value")) if before == "value" else gone
        empty = ~layer.linears[before].weight.any(1)  # else its column is zero, and adds nothing
        constant = bias if bias is not None else torch.zeros_like(empty, dtype=after.weight.dtype)
        if before == "ffn_in":
            constant = layer.activation(constant)
        yield role, after.weight.double() @ (constant * (gone & empty)).double()


@torch.no_grad()
def zeros_of(model: nn.Module) -> float:
    """The share of zeros among the weights of a bare task model's prunable linears, 0 to 1."""
    linears = [linear for layer in anatomy.layers(model) for linear in layer.linears.values()]
    total = sum(linear.weight.numel() for linear in linears)
    return 1 - sum(int(torch.count_nonzero(linear.weight)) for linear in linears) / total if total else 0.0
