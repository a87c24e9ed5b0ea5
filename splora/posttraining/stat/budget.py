"""How many heads and neurons each layer keeps: the published rule of STAT (Flynn et al. 2024), and the default's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from splora.errors import InputError
from splora.posttraining.core.budget import Costs


@dataclass(frozen=True)
class Counts:
    """Heads and neurons that stay, by layer."""

    heads: tuple[int, ...]
    neurons: tuple[int, ...]


#: From errors by layer to errors that can be compared between layers.
Weigh = Callable[[Sequence[Tensor]], list[Tensor]]


def by_depth(errors: Sequence[Tensor]) -> list[Tensor]:
    """Errors of layer i = 0 … L−1 times 1 + √(L − i + 1): what goes wrong early goes on to all layers above."""
    layers = len(errors)
    return [error * (1 + (layers - number + 1) ** 0.5) for number, error in enumerate(errors)]


def by_trend(errors: Sequence[Tensor]) -> list[Tensor]:
    """Errors divided by a log-linear fit over depth, for decoders, whose activations grow with depth.

    The line goes through the logarithms of the layers' mean errors (layers without error left out) and is divided out
    relative to its middle, so that the errors' unit stays.
    """
    means = torch.stack([error.mean() if len(error) else error.new_zeros(()) for error in errors])
    depth = torch.arange(len(errors), dtype=means.dtype, device=means.device)
    there = means > 0
    if int(there.sum()) < 2:
        return list(errors)
    middle, logarithm = depth[there].mean(), means[there].log()
    slope = ((depth[there] - middle) * logarithm).sum() / (depth[there] - middle).square().sum()
    return [error / (slope * (depth[number] - middle)).exp() for number, error in enumerate(errors)]


def published_counts(
    head_errors: Sequence[Tensor], neuron_errors: Sequence[Tensor], costs: Costs, budget: float, weigh: Weigh = by_depth
) -> Counts:
    """Choose the number of heads at which both kinds of errors balance, and cut both at one threshold over layers.

    For h heads in all, the budget leaves n(h) neurons. Of each kind, those with the largest weighed errors stay. The
    first head error beyond is the cut-off c(h), which falls with h. The neurons that go leave a residual in each layer,
    the root of the sum of their squared (not weighed) errors; its mean over layers, r(h), rises with h. The number of
    heads is the smallest h with c(h) ≤ 2 r(h), or the largest that the budget can pay.

    Args:
        head_errors: of each layer, the error of stopping after 0, 1, … heads, in the order of heads; float64 (heads,).
        neuron_errors: of each layer, the residuals of its neurons in the order of pivots, scaled by the norms of their
            output columns; float64 (neurons,).
        costs: MACs of a head and of a neuron.
        budget: MACs of the pruned model at most.
        weigh: makes layers comparable.

    Raises:
        InputError: the budget buys neither a head nor a neuron.
    """
    heads, neurons = _falling(weigh(head_errors)), _falling(weigh(neuron_errors))
    check_budget(costs, budget, sum(map(len, heads)), sum(map(len, neurons)))
    head_order, neuron_order = _order(heads), _order(neurons)
    # Of each layer, the residual if its first 0, 1, … neurons stay.
    residuals = [_norm_of_rest(error.double()) for error in neuron_errors]
    kept_heads, kept_neurons = [0] * len(heads), [0] * len(neurons)
    bought = 0
    wanted = min(int(budget // costs.neuron), len(neuron_order))
    for layer in neuron_order[:wanted]:
        kept_neurons[layer] += 1
    while bought < len(head_order):
        cut_off = float(heads[head_order[bought]][kept_heads[head_order[bought]]])
        mean = sum(float(rest[kept]) for rest, kept in zip(residuals, kept_neurons, strict=True)) / len(residuals)
        if cut_off <= 2 * mean or (bought + 1) * costs.head > budget:
            break
        kept_heads[head_order[bought]] += 1
        bought += 1
        left = min(int((budget - bought * costs.head) // costs.neuron), len(neuron_order))
        for layer in neuron_order[left:wanted]:
            kept_neurons[layer] -= 1
        wanted = left
    return Counts(tuple(kept_heads), tuple(kept_neurons))


def allocate(
    head_errors: Sequence[Tensor],
    neuron_errors: Sequence[Tensor],
    costs: Costs,
    budget: float,
    head_factor: float = 1.0,
) -> Counts:
    """The least sum of errors within a budget: what saves most error per MAC is bought first, over all sub-layers.

    Optimal on the lower convex hulls of the errors (one Lagrange multiplier), but for the last purchase.

    Args:
        head_errors: of each layer, the squared error if 0, 1, …, all heads stay; float64 (heads + 1,).
        neuron_errors: the same of neurons, in the same unit.
        costs: MACs of a head and of a neuron.
        budget: MACs of the pruned model at most.
        head_factor: what heads' errors are multiplied by.

    Raises:
        InputError: the budget buys neither a head nor a neuron.
    """
    check_budget(
        costs, budget, sum(len(error) - 1 for error in head_errors), sum(len(error) - 1 for error in neuron_errors)
    )
    offers: list[tuple[float, str, int, int]] = []  # error saved per MAC; part, layer, units
    for part, errors, cost, factor in (
        ("heads", head_errors, costs.head, head_factor),
        ("neurons", neuron_errors, costs.neuron, 1.0),
    ):
        for layer, error in enumerate(errors):
            values = error.tolist()
            corners = _hull(values)
            for start, end in pairwise(corners):
                saved = factor * (values[start] - values[end]) / ((end - start) * cost)
                offers.append((saved, part, layer, end - start))
    counts = {"heads": [0] * len(head_errors), "neurons": [0] * len(neuron_errors)}
    cost_of: Mapping[str, int] = {"heads": costs.head, "neurons": costs.neuron}
    left = budget
    closed: set[tuple[str, int]] = set()
    for _, part, layer, units in sorted(offers, key=lambda offer: -offer[0]):
        if (part, layer) in closed:
            continue
        bought = min(units, int(left // cost_of[part]))
        counts[part][layer] += bought
        left -= bought * cost_of[part]
        if bought < units:
            closed.add((part, layer))
    return Counts(tuple(counts["heads"]), tuple(counts["neurons"]))


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


def _hull(values: Sequence[float]) -> list[int]:
    """Corners of the lower convex hull of the points (number, value)."""
    corners: list[int] = []
    for number, value in enumerate(values):
        while len(corners) > 1:
            last, before = corners[-1], corners[-2]
            slope = (value - values[before]) / (number - before)
            if (values[last] - values[before]) / (last - before) < slope:
                break
            corners.pop()
        corners.append(number)
    return corners


def _falling(errors: Sequence[Tensor]) -> list[Tensor]:
    """Errors that never rise along the order: what is kept of a layer is always its first ones."""
    return [error.double().cummin(0)[0] if len(error) else error.double() for error in errors]


def _order(errors: Sequence[Tensor]) -> list[int]:
    """The layer of each error, the largest errors first; of equal ones the first layer's."""
    layer = torch.cat([torch.full((len(error),), number) for number, error in enumerate(errors)])
    return layer[torch.cat(list(errors)).cpu().argsort(descending=True, stable=True)].tolist()


def _norm_of_rest(errors: Tensor) -> list[float]:
    """Root of the sum of squares from each position on; the last is 0."""
    rest = errors.square().flip(0).cumsum(0).flip(0).sqrt()
    return [*rest.tolist(), 0.0]
