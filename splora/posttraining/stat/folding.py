"""What removed heads or neurons gave, put into the weights of those that stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.export.cut import cut
from splora.export.plan import Plan
from splora.posttraining.core.calls import in_turn
from splora.posttraining.core.gram import Gram
from splora.posttraining.core.sublayers import PARTS
from splora.posttraining.stat.interpolative import expand, normal_equations, solve


@dataclass(frozen=True)
class Folded:
    """A smaller model, and where its weights are not the only ones.

    Attributes:
        model: with corrected output projections.
        dependent: sub-layers of which something was removed and whose kept channels depend on one another: (rank,
            channels) by name. Damping makes every system regular, but for channels that are always zero: with it, only
            these are told.
    """

    model: nn.Module
    dependent: dict[str, tuple[int, int]]

    @property
    def notes(self) -> dict[str, Any]:
        """What the result should say about it."""
        if not self.dependent:
            return {}
        told = {
            name: f"{rank} of {channels} kept channels are independent"
            for name, (rank, channels) in self.dependent.items()
        }
        return {"dependent_channels": told}


@torch.no_grad()
def fold(model: nn.Module, plan: Plan, grams: Sequence[dict[str, Gram]], *, bias: bool, damping: float = 0.0) -> Folded:
    """Cut a model and correct its output projections: W[:, kept] + W[:, removed] Tᵀ.

    Args:
        model: from which the activations come; it stays as it is.
        plan: which of its heads and neurons stay.
        grams: of each layer, by `heads` and `neurons` (both or one), the Gram matrix of what meets the projection.
        bias: combine deviations from the means, and put what is left of the means into the bias, where there is one.
        damping: part of its diagonal that is added to the Gram matrix.
    """
    smaller = cut(model, plan)
    dependent = {}
    kept_of = {"heads": plan.heads, "neurons": plan.neurons}
    for number, (layer, thinner) in enumerate(in_turn(anatomy.layers(model), anatomy.layers(smaller))):
        by_part = grams[number]
        for part in PARTS:
            if part.name not in by_part:
                continue
            gram, linear = by_part[part.name], layer.linears[part.role]
            kept = torch.tensor(kept_of[part.name][number], dtype=torch.long, device=linear.weight.device)
            kept = expand(kept, part.size(layer))
            stays = torch.zeros(linear.in_features, dtype=torch.bool, device=kept.device)
            stays[kept] = True
            removed = torch.nonzero(~stays).flatten()
            if not len(removed):
                continue
            # With a bias it is a new tensor, which can be changed.
            with_bias = bias and linear.bias is not None
            matrix = gram.centred()[0] if with_bias else gram.matrix
            if damping:
                matrix = matrix if with_bias else matrix.clone()
                matrix.diagonal().mul_(1 + damping)
            weight = linear.weight.double()
            gone = weight[:, removed]
            equations = normal_equations(matrix, kept, removed, gone)
            del matrix  # the largest there is
            found = solve(*equations, gram.tolerance)
            if found.rank < len(kept):
                dependent[f"layer.{number}.{part.name}"] = (found.rank, len(kept))
            target = thinner.linears[part.role]
            target.weight.copy_(weight[:, kept] + found.weights.T)
            if with_bias:
                means = gram.sum / max(gram.rows, 1.0)
                target.bias.add_(gone @ means[removed] - found.weights.T @ means[kept])
            del equations, found, weight, gone
    return Folded(smaller, dependent)


def plan_of(heads: Sequence[Tensor], neurons: Sequence[Tensor]) -> Plan:
    """The plan that keeps these numbers, in any order."""
    return Plan(
        tuple(tuple(sorted(kept.tolist())) for kept in heads),
        tuple(tuple(sorted(kept.tolist())) for kept in neurons),
    )
