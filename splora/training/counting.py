"""Remaining and learned weights: what DESIGN's percentages count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.adapters import MaskedAdapterLayer, MaskedAdapterModel
from splora.masks import MaskedLinear, masked_layers


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
    from peft.tuners.lora import LoraLayer

    remaining = learned = 0
    counted: set[int] = set()
    adapters: set[str] = set()
    for name in anatomy.encoder_linears(model):
        layer = model.get_submodule(name)
        kept = int(torch.count_nonzero(effective_weight(layer)))
        remaining += kept
        if isinstance(layer, MaskedAdapterLayer):
            adapters.add(_adapter(layer))
        elif isinstance(layer, LoraLayer):
            continue  # what of it trains is counted below
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
    return WeightCounts(dense_weights(model), remaining, learned)


@torch.no_grad()
def count_cut(model: nn.Module) -> WeightCounts:
    """Count a model whose heads and neurons were cut: what is not zero, over what its configuration says was there.

    Args:
        model: of `splora.export`, or any plain one, of which nothing is gone; nothing of it was learned.
    """
    linears = (linear for layer in anatomy.layers(model) for linear in layer.linears.values())
    remaining = sum(int(torch.count_nonzero(linear.weight)) for linear in linears)
    return WeightCounts(dense_weights(model), remaining, learned=0)


def dense_weights(model: nn.Module) -> int:
    """Weights of the prunable linears before anything was cut, as the model's configuration says."""
    config = anatomy.config_of(model)
    hidden, heads_and_neurons = int(config.hidden_size), anatomy.dense_sizes(config)
    head = hidden * (anatomy.head_size(config) + sum(anatomy.head_rows(config).values()))
    neuron = hidden * (3 if "ffn_gate" in anatomy.family_of(config).linears else 2)
    return head * sum(heads_and_neurons[0]) + neuron * sum(heads_and_neurons[1])


@torch.no_grad()
def effective_weight(layer: nn.Module) -> Tensor:
    """W (out, in) that a prunable linear computes with in evaluation, whatever wraps it: mask and adapter applied."""
    if isinstance(layer, MaskedAdapterLayer):
        adapter = _adapter(layer)
        return layer.effective_weight(adapter, layer.binary_mask(adapter))
    if isinstance(layer, MaskedLinear):
        return layer.effective_weight()
    from peft.tuners.lora import LoraLayer

    if isinstance(layer, LoraLayer):
        weight: Tensor = layer.get_base_layer().weight
        for name in layer.active_adapters:
            weight = weight + layer.get_delta_weight(name)
        return weight
    assert isinstance(layer, nn.Linear)
    return layer.weight


def _adapter(layer: MaskedAdapterLayer) -> str:
    adapter = layer.current_adapter()
    assert adapter is not None, f"{layer.where} has no active adapter"
    return adapter


def mask_density(model: nn.Module) -> float:
    """Fraction of all masked weights that is kept now."""
    kept = weights = 0
    layers: dict[str, Any] = masked_layers(model)
    for layer in layers.values():
        mask, (rows, cols) = layer.binary_mask(), layer.block_mask.block
        kept += int(mask.sum()) * rows * cols
        weights += mask.numel() * rows * cols
    return kept / weights
