"""Putting block masks on a model's linears, finding them, and folding them into the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from splora.errors import InputError, nearest
from splora.masks.block_mask import BlockMask
from splora.masks.grid import BlockShape, split
from splora.masks.masked_linear import MaskedLinear
from splora.masks.units import Placement

Model = TypeVar("Model", bound=nn.Module)


def masked_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every module of `model` whose `block_mask` is a `BlockMask`, by its full name, in the model's order.

    That is a `MaskedLinear`, or an adapter's layer while a mask is attached to its active adapter.
    """
    # A wrapper that passes attribute look-ups on shows its layer's mask as its own; the layer comes later and counts.
    found: dict[int, tuple[str, nn.Module]] = {}
    for name, module in model.named_modules():
        mask = getattr(module, "block_mask", None)
        if isinstance(mask, BlockMask):
            found[id(mask)] = (name, module)
    return dict(found.values())


def mask_linears(
    model: nn.Module,
    targets: Mapping[str, BlockShape],
    method: str,
    mask_init: str = "constant",
    mask_scale: float = 0.0,
    placement: Placement | None = None,
) -> list[BlockMask]:
    """Wrap linears of `model` in `MaskedLinear`, in place; returns their masks in the order of `targets`.

    Args:
        targets: full name of each nn.Linear, and the block shape (p, q) of its mask.
        placement: which masks decide for others; None: each for itself.
        method, mask_init, mask_scale: see `BlockMask`.

    Raises:
        InputError: every target that is not a plain linear of the model or that its blocks do not divide, and an
            unknown method or mask_init. The model is then unchanged.
    """
    modules = dict(model.named_modules())
    linears = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    first = len(masked_layers(model))
    problems: list[str] = []
    wrapped: dict[str, MaskedLinear] = {}
    made: dict[str, BlockMask] = {}
    placement = placement or Placement(dict(targets), {}, {})
    numbers = {name: index for index, name in enumerate(targets, start=first)}
    for name in placement.order():
        layer = modules.get(name)
        if not name or not isinstance(layer, nn.Linear):
            kind = "no module of the model" if layer is None else f"a {type(layer).__name__}"
            problems.append(f"{name}: is {kind}; a linear layer inside the model is needed{nearest(name, linears)}.")
            continue
        try:
            shape = (layer.out_features, layer.in_features)
            settings = {"method": method, "mask_init": mask_init, "mask_scale": mask_scale, "index": numbers[name]}
            made[name] = mask = placement.make(name, shape, settings, made)
        except InputError as error:
            problems += error.problems
            continue
        wrapped[name] = MaskedLinear(layer, mask.to(layer.weight.device)).train(layer.training)
    if problems:
        raise InputError(problems)
    for name, layer in wrapped.items():
        model.set_submodule(name, layer)
    gather_members(placement, made, {name: layer.block_means for name, layer in wrapped.items()})
    return [wrapped[name].block_mask for name in targets]


def gather_members(
    placement: Placement, masks: Mapping[str, BlockMask], means: Mapping[str, Callable[[], Tensor]]
) -> None:
    """Tell each mask that decides for other linears how large its units' weights are in all of them."""
    for leader in dict.fromkeys(placement.leaders.values()):
        followers = [name for name, of in placement.leaders.items() if of == leader]
        masks[leader].members = [means[name] for name in (leader, *followers)]


@torch.no_grad()
def fold(model: Model) -> Model | nn.Linear:
    """Replace every `MaskedLinear` by its nn.Linear with the pruned blocks exactly zero, in place.

    What is left is the stock architecture, with stock parameter names. Returns `model`, or the linear if `model`
    itself is a `MaskedLinear`.
    """
    if isinstance(model, MaskedLinear):
        return _folded(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, MaskedLinear):
            model.set_submodule(name, _folded(module))
    return model


def _folded(layer: MaskedLinear) -> nn.Linear:
    pruned = ~layer.binary_mask()[:, None, :, None]
    # Filled, not multiplied: a product leaves −0 in place of negative weights.
    split(layer.base_layer.weight, layer.block_mask.block).masked_fill_(pruned, 0.0)
    return layer.base_layer
