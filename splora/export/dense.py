"""The dense model behind a smaller one, as its configuration tells: what costs are compared with."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from splora import anatomy


def is_cut(model: nn.Module) -> bool:
    """Whether layers of a model have fewer heads or neurons than its configuration says of the dense one."""
    heads, neurons = anatomy.dense_sizes(anatomy.config_of(model))
    found = [(layer.heads, layer.neurons) for layer in anatomy.layers(model)]
    return found != list(zip(heads, neurons, strict=True))


def dense_model(model: nn.Module) -> nn.Module:
    """A model of the same kind and configuration before anything was cut, with random weights.

    For latencies, which do not depend on weights.
    """
    import transformers

    bare: Any = model
    config = copy.deepcopy(bare.config)
    if getattr(config, "per_layer_config", None) is not None:
        config.per_layer_config = None
    first = next(bare.parameters())
    with torch.random.fork_rng(devices=[]):
        made: nn.Module = getattr(transformers, type(bare).__name__)(config)
    return made.to(first.device, first.dtype).eval()


def parameters(model: nn.Module) -> int:
    """Parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def dense_parameters(model: nn.Module) -> int:
    """Parameters before anything was cut: those of now, and of each missing head and neuron."""
    total = parameters(model)
    config = anatomy.config_of(model)
    sizes, by_head = anatomy.dense_sizes(config), anatomy.head_rows(config)
    for layer, heads, neurons in zip(anatomy.layers(model), *sizes, strict=True):
        hidden = layer.linears["query"].in_features
        biased = {role: linear.bias is not None for role, linear in layer.linears.items()}
        per_head = layer.head_size * hidden + sum(rows * (hidden + biased[role]) for role, rows in by_head.items())
        before = [role for role in ("ffn_gate", "ffn_in") if role in layer.linears]
        per_neuron = hidden + sum(hidden + biased[role] for role in before)
        total += (heads - layer.heads) * per_head + (neurons - layer.neurons) * per_neuron
    return total
