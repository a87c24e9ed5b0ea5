"""Retraining-free pruning as its published program does it, for comparison: written anew from the paper, plain.

It differs from `splora.posttraining.fisher.method` in what the paper's program chose: gradients of mini-batches by
the data's labels, by masks that are multiplied in; fp32; rearrangement that sums up all chosen rows again at every
step; LSMR (damp 1) on the normal equations, without biases, towards a teacher of the budget's square root; and an end
of rescaling at the first sub-layer whose factors are out of range.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse.linalg import lsmr
from torch import Tensor, nn

from splora import anatomy
from splora.export.cut import cut
from splora.export.plan import Plan
from splora.posttraining.core.budget import Costs
from splora.posttraining.core.calibration import Calibration, is_label
from splora.posttraining.core.states import States
from splora.posttraining.core.sublayers import PARTS
from splora.posttraining.fisher.least_squares import NormalEquations
from splora.posttraining.fisher.search import search_macs


def gradients(model: nn.Module, calibration: Calibration) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of mini-batches by head and neuron masks, per layer (batches, masks)."""
    layers = anatomy.layers(model)
    masks = [
        (torch.ones(layer.heads, requires_grad=True), torch.ones(layer.neurons, requires_grad=True)) for layer in layers
    ]
    handles = []
    for layer, pair in zip(layers, masks, strict=True):
        for part, mask in zip(PARTS, pair, strict=True):
            size = part.size(layer)
            multiply = lambda _, x, mask=mask, size=size: (x[0] * mask.repeat_interleave(size),)  # noqa: E731
            handles.append(layer.linears[part.role].register_forward_pre_hook(multiply))
    model.requires_grad_(False)
    rows: list[list[Tensor]] = [[] for _ in range(2 * len(layers))]
    for batch in calibration:
        found = torch.autograd.grad(model(**batch).loss, [mask for pair in masks for mask in pair])
        for kept, gradient in zip(rows, found, strict=True):
            kept.append(gradient)
    for handle in handles:
        handle.remove()
    stacked = [torch.stack(kept) for kept in rows]
    return stacked[::2], stacked[1::2]


def exchange(rows: Tensor, kept: Tensor) -> Tensor:
    """Greedy rearrangement of one layer; rows (samples, masks)."""
    pruned = len(kept) - int(kept.sum())
    if pruned in (0, len(kept)):
        return kept
    by_mask = rows.T.contiguous()
    order = by_mask.square().sum(1).argsort().tolist()
    chosen = order[:pruned]
    for joining in order[pruned:]:
        chosen.append(joining)
        vectors = by_mask[chosen]
        chosen.pop(int((vectors.sum(0) - vectors).square().sum(1).argmin()))
    result = torch.ones_like(kept)
    result[chosen] = False
    return result


@torch.no_grad()
def rescale(
    student: nn.Module, teacher: nn.Module, batches: Sequence[dict[str, Tensor]], first_token_only: bool
) -> int:
    """Rescale until factors are out of range; returns how many sub-layers were rescaled."""
    keeps = [batch["attention_mask"].bool() for batch in batches]
    own, taught = States(student, batches), States(teacher, batches)
    pairs = list(zip(anatomy.layers(student), anatomy.layers(teacher), strict=True))
    done = 0
    for number, (layer, above) in enumerate(pairs):
        for part in PARTS:
            linear, size = layer.linears[part.role], part.size(layer)
            equations = NormalEquations(linear.weight, size)
            for index, keep in enumerate(keeps):
                hidden, reference = own[index], taught[index]
                inner = part.inner(layer, hidden, own.call(index, number))
                projected = above.linears[part.role](part.inner(above, reference, taught.call(index, number)))
                counted = keep.clone()
                if first_token_only and number == len(pairs) - 1:
                    counted[:, 1:] = False
                equations.add(inner[counted], (reference + projected - hidden - linear.bias)[counted])
                taught[index] = part.close(above, reference, projected)
            if linear.in_features:
                normal, right = (values.numpy() for values in equations.system())
                factors = 1 + lsmr(normal, right - normal.sum(1), damp=1.0)[0]
                if not np.abs(factors).max() <= 10:
                    return done
                linear.weight.mul_(torch.from_numpy(factors).float().repeat_interleave(size))
                done += 1
            for index in range(len(keeps)):
                hidden = own[index]
                inner = part.inner(layer, hidden, own.call(index, number))
                own[index] = part.close(layer, hidden, linear(inner))
    return done


class Published:
    """The gradients of one seed, from which prunings to several budgets follow."""

    def __init__(self, model: nn.Module, calibration: Calibration, costs: Costs) -> None:
        self.model, self.costs = model, costs
        self.rows = gradients(model, calibration)
        self.inputs = [{name: batch[name] for name in batch if not is_label(name)} for batch in calibration.grouped()]

    def prune(self, fraction: float, first_token_only: bool) -> nn.Module:
        """The pruned model."""
        heads, neurons = ([rows.double().square().sum(0) for rows in part] for part in self.rows)
        dense = Plan.dense(self.model)
        whole = self.costs.of_plan(dense)
        found = search_macs(heads, neurons, self.costs, fraction * whole)
        masks = found.masks(dense)
        plan = Plan.from_masks(
            *(
                [exchange(rows, masks[f"layer.{number}.{name}"]) for number, rows in enumerate(part)]
                for name, part in zip(("heads", "neurons"), self.rows, strict=True)
            )
        )
        student = cut(self.model, plan)
        teacher = cut(self.model, search_macs(heads, neurons, self.costs, fraction**0.5 * whole))
        rescale(student, teacher, self.inputs, first_token_only)
        return student
