"""Remaining and learned weights: what DESIGN's percentages count."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.adapters import MaskedAdapterLayer, MaskedAdapterModel
from splora.masks import MaskedLinear


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
    adapters: set[str] = set()
    for name in anatomy.encoder_linears(model):
        layer = model.get_submodule(name)
        weight = effective_weight(layer)
        kept = int(torch.count_nonzero(weight))
        encoder += weight.numel()
        remaining += kept
        if isinstance(layer, MaskedAdapterLayer):
            adapters.add(_adapter(layer))
        elif any(parameter.requires_grad for parameter in layer.parameters()):
            assert isinstance(layer, nn.Linear | MaskedLinear)
            learned += kept + (0 if layer.bias is None else layer.bias.numel())
            counted |= {id(parameter) for parameter in layer.parameters()}
    for tuner in (module for module in model.modules() if isinstance(module, MaskedAdapterModel)):
        learned += sum(tuner.learned_parameters(adapter) for adapter in adapters)
        prefix = tuner.prefix
        counted |= {id(p) for name, p in tuner.named_parameters() if any(x.startswith(prefix) for x in name.split("."))}
    learned += sum(
        parameter.numel()
        for parameter in model.parameters()
        if parameter.requires_grad and id(parameter) not in counted
    )
    return WeightCounts(encoder, remaining, learned)


@torch.no_grad()
def count_cut(model: nn.Module) -> WeightCounts:
    """Count a model whose heads and neurons were cut: what is not zero, over what its configuration says was there.

    Args:
        model: of `splora.export`, or any plain one, of which nothing is gone; nothing of it was learned.
    """
    config = next(module.config for module in model.modules() if hasattr(module, "config"))
    # Where layers differ, only the dictionary gives out the sizes of the dense model.
    neurons = int(vars(config)[anatomy.family_of(config).sizes[1]])
    hidden = anatomy.layers(model)[0].linears["query"].in_features
    wide = int(vars(config)[anatomy.family_of(config).sizes[0]]) * anatomy.head_size(config)
    dense = {"ffn_in": hidden * neurons, "ffn_out": hidden * neurons}
    encoder = remaining = 0
    for layer in anatomy.layers(model):
        for role, linear in layer.linears.items():
            encoder += dense.get(role, hidden * wide)
            remaining += int(torch.count_nonzero(linear.weight))
    return WeightCounts(encoder, remaining, learned=0)


@torch.no_grad()
def effective_weight(layer: nn.Module) -> Tensor:
    """W (out, in) that a prunable linear computes with in evaluation, whatever wraps it: mask and adapter applied."""
    if isinstance(layer, MaskedAdapterLayer):
        adapter = _adapter(layer)
        return layer.effective_weight(adapter, layer.binary_mask(adapter))
    if isinstance(layer, MaskedLinear):
        return layer.effective_weight()
    assert isinstance(layer, nn.Linear)
    return layer.weight


def _adapter(layer: MaskedAdapterLayer) -> str:
    adapter = layer.current_adapter()
    assert adapter is not None, f"{layer.where} has no active adapter"
    return adapter
