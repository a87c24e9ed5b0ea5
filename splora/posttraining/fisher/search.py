"""The mask search: which heads and neurons a MAC budget keeps (Kwon et al. 2022, section 3.1, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from splora.errors import InputError
from splora.export.plan import Plan
from splora.posttraining.core.budget import Costs


def search_macs(heads: Sequence[Tensor], neurons: Sequence[Tensor], costs: Costs, budget: float) -> Plan:
    """For every number of heads, buy neurons with what the budget leaves; keep the pair of least Fisher loss.

    The loss of pruning is the sum of the pruned importances (a diagonal Fisher matrix), so that for given numbers the
    most important heads and neurons of the whole model stay.

    Args:
        heads: importance of every head, float64 (heads,) per layer.
        neurons: importance of every neuron, float64 (neurons,) per layer.
        costs: MACs of a head and of a neuron.
        budget: MACs of the pruned model at most.

    Raises:
        InputError: the budget buys neither a head nor a neuron.
    """
    every_head, every_neuron = torch.cat(list(heads)), torch.cat(list(neurons))
    if budget < min(costs.head, costs.neuron):
        whole = costs.total([len(every_head)], [len(every_neuron)])
        smallest = min(costs.head, costs.neuron) / whole
        raise InputError(
            f"The budget keeps nothing at all; the smallest possible is {smallest:.2g} of the dense model's MACs."
        )
    head_order = every_head.argsort(descending=True, stable=True)
    neuron_order = every_neuron.argsort(descending=True, stable=True)
    kept_by_heads = torch.cat([torch.zeros(1).double(), every_head[head_order].double().cumsum(0)])
    kept_by_neurons = torch.cat([torch.zeros(1).double(), every_neuron[neuron_order].double().cumsum(0)])
    head_counts = torch.arange(len(every_head) + 1)
    # Whole MACs: fp32 would round a budget of thousands of millions up to the next neuron.
    left = int(budget) - head_counts * costs.head
    affordable = left >= 0
    neuron_counts = (left // costs.neuron).clamp(0, len(every_neuron))
    importance = (kept_by_heads + kept_by_neurons[neuron_counts]).masked_fill(~affordable, -torch.inf)
    best = int(importance.argmax())
    return Plan.from_masks(
        _chosen(head_order[:best], heads), _chosen(neuron_order[: int(neuron_counts[best])], neurons)
    )


def _chosen(numbers: Tensor, layers: Sequence[Tensor]) -> list[Tensor]:
    """Masks by layer of chosen numbers that run over all layers."""
    mask = torch.zeros(sum(len(layer) for layer in layers), dtype=torch.bool)
    mask[numbers] = True
    return list(mask.split([len(layer) for layer in layers]))
