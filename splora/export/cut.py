"""Physically smaller models: heads and neurons cut out of the linears of every layer."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.anatomy.projections import shares
from splora.errors import InputError
from splora.export.plan import Plan
from splora.offload import derived


def cut(model: nn.Module, plan: Plan) -> nn.Module:
    """A new model of the same task that has only the heads and neurons of `plan`; `model` stays as it is.

    Weights and biases of `attention_output` and `ffn_out` are always copies, as rescaling changes them in place; other
    parameters from which nothing is cut, and buffers, are shared with `model`. Data type, device, attention
    implementation, training mode and `requires_grad` are those of `model`; hooks are not taken along.

    Args:
        model: a bare task model of transformers, dense or already cut; of one of the classes of `pruned_modeling`.
        plan: numbers of heads and neurons that stay, counted in `model` as it is.

    Returns:
        A model of the class of the same name in `pruned_modeling`, whose configuration holds each layer's sizes.

    Raises:
        InputError: the model is none that can be cut, or the plan does not fit it.
    """
    from splora.export.pruned_modeling import task_model

    name = check_class(model)
    whole = Plan.dense(model)
    _check(plan, whole)
    config = _smaller_config(model.config, plan)
    with torch.device("meta"):
        smaller: Any = task_model(name)(config)

    family = anatomy.family_of(config)
    held = family.matrices() | dict.fromkeys(family.head_rows, ("query",))
    places = {
        f"{family.layers}.{number}.{path}": _Place(number, roles, family.transposed)
        for number in range(len(plan.heads))
        for path, roles in held.items()
    }
    rows = anatomy.head_rows(config)
    # Weights may be tied: each name is filled, and equal tensors stay one tensor.
    for path, parameter in model.named_parameters(remove_duplicate=False):
        module, _, leaf = path.rpartition(".")
        place = places.get(module)
        kept = parameter if place is None else _cut(parameter, leaf, place, rows, plan, whole)
        setattr(smaller.get_submodule(module), leaf, kept)
    for path, buffer in model.named_buffers(remove_duplicate=False):
        module, _, leaf = path.rpartition(".")
        setattr(smaller.get_submodule(module), leaf, buffer)
    if getattr(model, "generation_config", None) is not None:
        smaller.generation_config = copy.deepcopy(model.generation_config)
    result: nn.Module = smaller.train(model.training)
    return result


def check_class(model: nn.Module) -> str:
    """The name of a model's class.

    Raises:
        InputError: it is none of those that can be cut.
    """
    name = type(model).__name__
    if name not in anatomy.task_models():
        raise InputError(f"{name} cannot be cut; models that can are {', '.join(anatomy.task_models())}.")
    return name


@dataclass(frozen=True)
class _Place:
    """A layer, and the roles whose rows a weight there holds, (out, in) or `transposed`."""

    layer: int
    roles: tuple[str, ...]
    transposed: bool


def _cut(
    parameter: nn.Parameter, leaf: str, place: _Place, rows: Mapping[str, int], plan: Plan, whole: Plan
) -> nn.Parameter:
    """What stays of a weight or bias (out,) at `place`; `rows` of a head by role."""
    outer = place.roles[0] in ("attention_output", "ffn_out")
    if outer and leaf == "bias":
        return derived(parameter, Tensor.clone)
    dim = int(outer != (place.transposed and leaf == "weight"))
    in_attention = place.roles[0] in anatomy.ATTENTION_ROLES
    of, units = (whole.heads, plan.heads) if in_attention else (whole.neurons, plan.neurons)
    stays = torch.tensor(units[place.layer], dtype=torch.long)
    kept = []
    for part in shares(place.roles, rows, parameter.shape[dim]).values():
        size = (part.stop - part.start) // max(len(of[place.layer]), 1)
        kept.append((part.start + stays[:, None] * size + torch.arange(size)).flatten())
    numbers = torch.cat(kept)
    if not outer and len(numbers) == parameter.shape[dim]:
        return parameter
    return derived(parameter, lambda values: values.index_select(dim, numbers.to(values.device)))


def _smaller_config(config: Any, plan: Plan) -> Any:
    """A copy of the configuration with the plan's sizes by layer; the global sizes stay those of the dense model."""
    family = anatomy.family_of(config)
    heads, neurons = family.sizes
    config = copy.deepcopy(config)
    config.pruned_parts = family.parts()
    if family.bias_by_head:
        before = getattr(config, "pruned_heads", None) or [range(dense) for dense in anatomy.dense_sizes(config)[0]]
        config.pruned_heads = [[own[head] for head in kept] for own, kept in zip(before, plan.heads, strict=True)]
    if getattr(config, "rope_parameters", None) and not getattr(config, "head_dim", None):
        # Rotary positions are made anew when weights are loaded, by then from a number of heads that is not given out.
        config.head_dim = (
            anatomy.head_rows(config)["query"]
            * int(vars(config)[heads])
            // int(vars(config)[family.query_heads or heads])
        )
    config.per_layer_config = {
        layer: {heads: kept_heads, neurons: kept_neurons}
        for layer, (kept_heads, kept_neurons) in enumerate(zip(plan.head_counts, plan.neuron_counts, strict=True))
    }
    return config


def _check(plan: Plan, dense: Plan) -> None:
    problems = []
    for part, kept, of in (("heads", plan.heads, dense.heads), ("neurons", plan.neurons, dense.neurons)):
        if len(kept) != len(of):
            problems.append(f"the plan has {part} of {len(kept)} layers; the model has {len(of)} layers.")
            continue
        problems += [
            f"the plan's {part} of layer {layer} are not ascending numbers from 0 to {len(every) - 1}: {_shown(stays)}."
            for layer, (stays, every) in enumerate(zip(kept, of, strict=True))
            if list(stays) != sorted(set(stays) & set(every))
        ]
    if problems:
        raise InputError(problems)


def _shown(numbers: Sequence[int], most: int = 8) -> str:
    return ", ".join(map(str, numbers[:most])) + (", …" if len(numbers) > most else "")
