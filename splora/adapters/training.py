"""Masks in training: attached to an adapter's layers at the start, frozen into the adapter at the end."""

from __future__ import annotations

from functools import partial

from torch import nn

from splora.adapters.layer import MaskedAdapterLayer
from splora.adapters.model import MaskedAdapterModel
from splora.errors import InputError
from splora.masks.attach import gather_members
from splora.masks.block_mask import BlockMask
from splora.masks.grid import grid_shape
from splora.masks.units import Placement


def attach_block_masks(
    model: nn.Module,
    method: str,
    mask_init: str = "constant",
    mask_scale: float = 0.0,
    adapter_name: str = "default",
    placement: Placement | None = None,
) -> list[BlockMask]:
    """Let each adapter layer compute its mask at every step, from scores or magnitudes.

    Args:
        model: what `get_peft_model` returned, or a module that holds it.
        method, mask_init, mask_scale: see `BlockMask`.
        placement: which masks decide for others, by the names of linears in the base model; None: each for itself.

    Returns:
        The masks, in the order of the model's layers. A mask attached before is replaced.

    Raises:
        InputError: the model has no such adapter; unknown method or initialization; blocks that do not divide a weight.
    """
    layers = {layer.where: layer for layer in _layers(model, adapter_name)}
    if placement is None:
        for layer in layers.values():
            # Unless a mask over the whole weight was asked for, the adapter's own blocks are refused here.
            shape = (layer.out_features, layer.in_features)
            block = layer.mask_shapes[adapter_name]
            grid_shape(shape, layer.block_shapes[adapter_name] if block == shape else block, layer.where)
        placement = Placement({name: layer.mask_shapes[adapter_name] for name, layer in layers.items()}, {}, {})
    numbers = {name: index for index, name in enumerate(layers)}
    made: dict[str, BlockMask] = {}
    for name in placement.order():
        shape = (layers[name].out_features, layers[name].in_features)
        settings = {"method": method, "mask_init": mask_init, "mask_scale": mask_scale, "index": numbers[name]}
        made[name] = placement.make(name, shape, settings, made)
    for name, layer in layers.items():
        layer.attach_block_mask(adapter_name, made[name])
    gather_members(placement, made, {name: partial(layer.block_means, adapter_name) for name, layer in layers.items()})
    return [made[name] for name in layers]


def freeze_masks(model: nn.Module, adapter_name: str = "default") -> None:
    """Make the masks of now the adapter's own, drop the scores, and set to zero what pruned blocks had learned.

    Raises:
        InputError: the model has no such adapter.
    """
    layers = _layers(model, adapter_name)
    for layer in layers:
        layer.freeze_mask(adapter_name)
    for layer in layers:
        layer.clear_pruned(adapter_name)
    for module in model.modules():
        if isinstance(module, MaskedAdapterModel):
            module.clear_pruned(adapter_name)


def _layers(model: nn.Module, adapter: str) -> list[MaskedAdapterLayer]:
    layers = [module for module in model.modules() if isinstance(module, MaskedAdapterLayer)]
    found = [layer for layer in layers if adapter in layer.block_shapes]
    if not found:
        known = sorted({name for layer in layers for name in layer.block_shapes})
        raise InputError(
            f"The model has no adapter {adapter!r}; it has {', '.join(known) or 'none of SPLoPA or SPLoRA'}."
        )
    return found
