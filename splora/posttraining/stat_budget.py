"""How many heads and neurons each layer keeps: the published rule of STAT (Flynn et al. 2024, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splora.errors import InputError
from splora.posttraining.budget import Costs


@dataclass(frozen=True)
class Counts:
    """Heads and neurons that stay, by layer."""

    heads: tuple[int, ...]
    neurons: tuple[int, ...]


def by_depth(errors: Sequence[Tensor]) -> list[Tensor]:
    """Errors of layer i = 0 … L−1 times 1 + √(L − i + 1): what goes wrong early goes on to all layers above."""
    layers = len(errors)
    return [error * (1 + (layers - number + 1) ** 0.5) for number, error in enumerate(errors)]


def by_trend(errors: Sequence[Tensor]) -> list[Tensor]:
    """Errors divided by a log-linear fit over depth, so that layers of a language model compare.

    The fit is a straight line through the logarithms of the layers' mean errors; layers without error are left out.
    """
    means = torch.stack([error.mean() if len(error) else error.new_zeros(()) for error in errors])
    depth = torch.arange(len(errors), dtype=means.dtype, device=means.device)
    there = means > 0
    if not bool(there.any()):
        return list(errors)
    x, y = depth[there], means[there].log()
    spread = x - x.mean()
    slope = (spread * y).sum() / spread.square().sum() if len(x) > 1 else x.new_zeros(())
    trend = (y.mean() + slope * (depth - x.mean())).exp()
    return [error / trend[number] for number, error in enumerate(errors)]


def published_counts(
    head_errors: Sequence[Tensor], neuron_errors: Sequence[Tensor], costs: Costs, budget: float
) -> Counts:
    """Choose the number of heads at which both kinds of errors balance, and cut both at one threshold over layers.

    For h heads in all, the budget leaves n(h) neurons. Of each kind those with the largest errors stay. The first
    error that is not kept is the heads' cut-off c(h), which falls with h; the mean error of the neurons that go, r(h),
    rises with h. h is the smallest number with c(h) ≤ 2 r(h) among those that the budget can pay.

    Args:
        head_errors: of each layer, error of stopping after 0, 1, … heads in order, weighted; float64 (heads,).
        neuron_errors: of each layer, residuals of its neurons in order, weighted; float64 (neurons,).
        costs: MACs of a head and of a neuron.
        budget: MACs of the pruned model at most.

    Raises:
        InputError: the budget buys neither a head nor a neuron.
    """
    heads, neurons = _falling(head_errors), _falling(neuron_errors)
    every_head, every_neuron = torch.cat(heads).sort(descending=True)[0], torch.cat(neurons).sort(descending=True)[0]
    check_budget(costs, budget, len(every_head), len(every_neuron))
    # Sums of the errors that go, by the number of neurons that stay.
    total = every_neuron.sum()
    gone = total - torch.cat([total.new_zeros(1), every_neuron.cumsum(0)])
    chosen = (0, 0)
    for count in range(len(every_head) + 1):
        left = int((budget - count * costs.head) // costs.neuron)
        if left < 0:
            break
        kept = min(left, len(every_neuron))
        chosen = (count, kept)
        cut_off = float(every_head[count]) if count < len(every_head) else 0.0
        residual = float(gone[kept]) / max(len(every_neuron) - kept, 1)
        if cut_off <= 2 * residual:
            break
    return Counts(_largest(heads, chosen[0]), _largest(neurons, chosen[1]))


def check_budget(costs: Costs, budget: float, heads: int, neurons: int) -> None:
    """Refuse a budget that keeps nothing.

    Raises:
        InputError: it buys neither a head nor a neuron.
    """
    smallest = min(costs.head, costs.neuron)
    if budget < smallest:
        raise InputError(
            f"The budget keeps nothing at all; the smallest possible is "
            f"{smallest / costs.total([heads], [neurons]):.2g} of the dense model's MACs."
        )


def _falling(errors: Sequence[Tensor]) -> list[Tensor]:
    """Errors that never rise along the order: what is kept of a layer is always its first ones."""
    return [error.double().cummin(0)[0] if len(error) else error.double() for error in errors]


def _largest(errors: Sequence[Tensor], count: int) -> tuple[int, ...]:
    """How many of the `count` largest errors are each layer's; of equal ones the first layers', then the first."""
    layer = torch.cat([torch.full((len(error),), number) for number, error in enumerate(errors)])
    order = torch.cat(list(errors)).cpu().argsort(descending=True, stable=True)[:count]
    return tuple(torch.bincount(layer[order], minlength=len(errors)).tolist())
