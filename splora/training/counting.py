"""Remaining and learned weights: what DESIGN's percentages count."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from splora import anatomy


@dataclass(frozen=True)
class WeightCounts:
    """Numbers of weights; percentages are over all weights of the encoder's prunable linear layers."""

    encoder: int
    remaining: int
    learned: int

    @property
    def remaining_percent(self) -> float:
        """Non-zero encoder weights over all encoder weights, in percent."""
        return 100 * self.remaining / self.encoder

    @property
    def learned_percent(self) -> float:
        """Parameters a task had to learn (and stores) over all encoder weights, in percent."""
        return 100 * self.learned / self.encoder


@torch.no_grad()
def count_weights(model: nn.Module) -> WeightCounts:
    """Count a model as it is: plain, masked, adapted, in training or loaded.

    Learned are, with an adapter, the position weights (SPLoRA: rows of B and columns of A) of kept blocks,
    shared prototypes once and every other trained parameter; without one, the non-zero encoder weights and
    every other trained parameter. Mask scores steer the training and are stored nowhere: they are not counted.
    """
    encoder = remaining = learned = 0
    counted: set[int] = set()
    for name in anatomy.encoder_linears(model):
        layer = model.get_submodule(name)
        weight = _base_weight(layer)
        counted.add(id(weight))
        kept = _remaining(layer, weight)
        encoder += weight.numel()
        remaining += kept
        if weight.requires_grad:
            learned += kept
        if hasattr(layer, "learned_parameters"):
            own = layer.learned_parameters()
            learned += own.count
            counted |= {id(parameter) for parameter in own.parameters}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in counted and not name.endswith("scores"):
            learned += parameter.numel()
    return WeightCounts(encoder, remaining, learned)


def _base_weight(layer: nn.Module) -> nn.Parameter:
    base = getattr(layer, "base_layer", layer)
    weight = base.weight
    assert isinstance(weight, nn.Parameter)
    return weight


def _remaining(layer: nn.Module, weight: nn.Parameter) -> int:
    """Non-zero weights of one layer: of kept blocks where it has a mask."""
    if hasattr(layer, "effective_weight"):
        return int(torch.count_nonzero(layer.effective_weight()))
    return int(torch.count_nonzero(weight))
