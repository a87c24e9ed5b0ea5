"""The mask search under a latency budget, in which whole sub-layers may fall (Kwon et al. 2022).

A sub-layer (the attention or the feed-forward part of a layer) costs nothing when it is dropped. When it is kept, it
costs a constant, for which its T most important units come along, and a slope for each further unit. Kept importance
is, for heads and neurons apart, a function of two numbers: sub-layers kept, and further units kept in them. Both
functions are tabulated, and each combination of the four numbers within the budget is compared; what is left for
neurons is worked out anew from the whole budget each time.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splora.errors import InputError
from splora.export.plan import Plan
from splora.posttraining.latency.fit import LatencyFit

#: Up to so many layers every set of sub-layers is tried.
_FEW_LAYERS = 6
#: Prices of a further unit at which sets of sub-layers are compared, where layers are more.
_PRICES = 64
#: Part of the budget that rounding may add.
_ROUNDING = 1e-9


def search_latency(
    heads: Sequence[Tensor], neurons: Sequence[Tensor], head_fit: LatencyFit, neuron_fit: LatencyFit, budget: float
) -> Plan:
    """The plan of least Fisher loss (sum of pruned importances) whose fitted latency lies within the budget.

    Exact for models of up to 6 layers. For more, the sub-layers that are kept are, among all sets of as many, the best
    at some price of a further unit: 64 prices, from one at which none is bought to one at which all are, are tried.

    Args:
        heads: importance of every head, not negative, (heads,) per layer.
        neurons: importance of every neuron, not negative, (neurons,) per layer.
        head_fit: latency of an attention sub-layer by its number of heads.
        neuron_fit: latency of a feed-forward sub-layer by its number of neurons.
        budget: milliseconds for all sub-layers together; the rest of the model is none of it.

    Raises:
        InputError: a budget below zero, or importances that are negative or no numbers.
    """
    if not budget >= 0:
        raise InputError(
            f"the latency budget leaves {budget:.4g} ms for heads and neurons; the smallest possible is 0, "
            f"a model without any."
        )
    attention, feed_forward = _Choices.of(heads, head_fit, "heads"), _Choices.of(neurons, neuron_fit, "neurons")
    budget *= 1 + _ROUNDING

    best, kept = (0, 0, 0, 0), -1.0
    for dropped_or_kept, value in enumerate(attention.values):
        extra = torch.arange(len(value)) if head_fit.slope > 0 else torch.tensor([len(value) - 1])
        rest = budget - dropped_or_kept * head_fit.constant - extra.double() * head_fit.slope
        for others, other_value in enumerate(feed_forward.values):
            left = rest - others * neuron_fit.constant
            bought = _bought(left, neuron_fit.slope, len(other_value) - 1)
            total = (value[extra] + other_value[bought]).masked_fill(left < 0, -torch.inf)
            first = int(total.argmax())
            if float(total[first]) > kept:
                kept = float(total[first])
                best = (dropped_or_kept, int(extra[first]), others, int(bought[first]))
    return Plan(attention.chosen(*best[:2]), feed_forward.chosen(*best[2:]))


def predicted_milliseconds(plan: Plan, head_fit: LatencyFit, neuron_fit: LatencyFit) -> float:
    """Fitted latency of a plan's heads and neurons; the overhead is not in it."""
    return sum(map(head_fit.at, plan.head_counts)) + sum(map(neuron_fit.at, plan.neuron_counts))


@dataclass(frozen=True)
class _Choices:
    """The most importance that any number of sub-layers of one kind keeps with any number of further units.

    Attributes:
        values: by number k of sub-layers: importance kept with 0, 1, … further units, (units + 1,), never falling.
        winners: by k: for each entry of `values`, which of `sets[k]` keeps so much.
        sets: by k: masks of kept sub-layers, bool (sets, layers).
        firsts: numbers of the T most important units, per layer.
        numbers: numbers, within their layers, of all other units of all layers, the most important first.
        owners: layers of these units.
    """

    values: list[Tensor]
    winners: list[Tensor]
    sets: list[Tensor]
    firsts: list[Tensor]
    numbers: Tensor
    owners: Tensor

    @classmethod
    def of(cls, scores: Sequence[Tensor], fit: LatencyFit, what: str) -> _Choices:
        """Choices by the importances of one kind of units."""
        scores = [layer.detach().double().cpu() for layer in scores]
        if any(not bool(torch.isfinite(layer).all()) or bool((layer < 0).any()) for layer in scores):
            raise InputError(
                f"the importances of {what} hold negative values, infinity or NaN; no budget can be spent by them."
            )
        orders = [layer.argsort(descending=True, stable=True) for layer in scores]
        firsts = [order[: fit.threshold] for order in orders]
        base = torch.stack([layer[first].sum() for layer, first in zip(scores, firsts, strict=True)])
        numbers = torch.cat([order[fit.threshold :] for order in orders])
        owners = torch.cat([torch.full_like(order[fit.threshold :], layer) for layer, order in enumerate(orders)])
        extras = torch.cat([layer[order[fit.threshold :]] for layer, order in zip(scores, orders, strict=True)])
        falling = extras.argsort(descending=True, stable=True)
        numbers, owners, extras = numbers[falling], owners[falling], extras[falling]

        sets = _candidates(base, extras, owners)
        values, winners = [], []
        for masks in sets:
            kept = [torch.cat([base[mask].sum()[None], extras[mask[owners]]]).cumsum(0) for mask in masks]
            # A set with fewer further units keeps what it has, however many are bought.
            longest = max(map(len, kept))
            padded = torch.stack([torch.cat([one, one[-1].expand(longest - len(one))]) for one in kept])
            value, winner = padded.max(0)
            values.append(value)
            winners.append(winner)
        return cls(values, winners, sets, firsts, numbers, owners)

    def chosen(self, sublayers: int, further: int) -> tuple[tuple[int, ...], ...]:
        """Units kept per layer, ascending, by so many sub-layers and further units."""
        mask = self.sets[sublayers][self.winners[sublayers][further]]
        bought = torch.nonzero(mask[self.owners]).flatten()[:further]
        numbers, owners = self.numbers[bought], self.owners[bought]
        return tuple(
            tuple(torch.cat([first, numbers[owners == layer]]).sort().values.tolist()) if mask[layer] else ()
            for layer, first in enumerate(self.firsts)
        )


def _candidates(base: Tensor, extras: Tensor, owners: Tensor) -> list[Tensor]:
    """Sets of sub-layers worth comparing, by their number: masks, bool (sets, layers).

    At a price per further unit, a sub-layer is worth the importance of its first units and what each further unit is
    worth beyond the price. At a high price that is its first units alone, at no price all of them.
    """
    layers = len(base)
    if layers <= _FEW_LAYERS:
        every = torch.tensor(list(itertools.product((False, True), repeat=layers)))
        return [every[every.sum(1) == count] for count in range(layers + 1)]
    ranks = torch.linspace(0, max(len(extras) - 1, 0), _PRICES).long().unique()
    prices = torch.cat([extras[ranks] if len(extras) else extras, torch.zeros(1, dtype=extras.dtype)])
    worth = torch.stack([base.index_add(0, owners, (extras - price).clamp(min=0)) for price in prices])
    order = worth.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return [torch.unique(order < count, dim=0) for count in range(layers + 1)]


def _bought(left: Tensor, slope: float, available: int) -> Tensor:
    """Units that the milliseconds left buy, int64, from 0 to those available; all where a unit costs nothing."""
    if slope == 0:
        return torch.full(left.shape, available, dtype=torch.long)
    return (left / slope).clamp(0, available).floor().long()
