"""The network of a run: a pretrained encoder in fp32, its adapter, its masks, and what of it is trained."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from splora import anatomy
from splora.errors import InputError
from splora.masks import BlockMask, Placement, mask_linears
from splora.masks.blocks import has_blocks, leaves_rest, misfits, within_heads
from splora.tasks.registry import REGISTRY
from splora.training.options import AdapterOptions, PruningOptions

logger = logging.getLogger(__name__)


def load_base(
    model_name_or_path: str,
    task: str,
    *,
    label2id: dict[str, int] | None = None,
    dropout: float | None = None,
    seed: int = 0,
) -> nn.Module:
    """The task model with pretrained weights in fp32, whatever precision they are stored in.

    Args:
        label2id: labels of a classification task; empty: a regression.
        dropout: replaces every dropout probability of the configuration.
        seed: for the parts that no checkpoint holds (a new task head).

    Raises:
        InputError: no such model, no network for a hub name, an unsupported family, a fine-tuned head for other
            labels, or weights that are not whole (see `load_weights`).
    """
    from splora.checkpoints.checkpoint import check_outputs, load_weights
    from splora.checkpoints.heads import has_head
    from splora.posttraining.core.probe import check_parts
    from splora.tasks.hub import load_config

    config = load_config(model_name_or_path)
    anatomy.check_trained(config)
    own = copy.deepcopy(config)
    checked = has_head(model_name_or_path, own, task)
    if checked:
        check_outputs(model_name_or_path, own, task)
    if dropout is not None:
        anatomy.set_dropout(config, dropout)
    if label2id:
        config.label2id = dict(label2id)
        config.id2label = {index: label for label, index in label2id.items()}
    elif label2id is not None or REGISTRY[task].names:
        config.num_labels = len(REGISTRY[task].names or ()) or 1
    torch.manual_seed(seed)
    model = load_weights(model_name_or_path, config, task, fresh_head=True, dtype=torch.float32)
    if not checked and has_head(model_name_or_path, own, task):  # weights that the hub has sent only now
        check_outputs(model_name_or_path, own, task)
    check_parts(model)
    return model.train()


def block_shapes(model: nn.Module, pruning: PruningOptions) -> dict[str, tuple[int, int]]:
    """Full name of every prunable linear layer → its block shape (rows, cols); of those that hold weights."""
    shapes = {}
    for name, place in _places(model).items():
        rows, cols = pruning.attention_block if place.in_attention else pruning.ffn_block
        shapes[name] = (int(rows), int(cols))
    return shapes


def mask_placement(model: nn.Module, pruning: PruningOptions, blocks: dict[str, tuple[int, int]]) -> Placement:
    """Where the masks of a bare task model lie: blocks, or whole heads and neurons that share one mask.

    Args:
        blocks: what `block_shapes` gives.

    Raises:
        InputError: a block shape does not divide its layer (all such layers are named), or blocks lie across heads
            that are to be filled.
    """
    size = anatomy.head_size(anatomy.config_of(model))
    shapes, leaders, units, problems = {}, {}, {}, []
    places = _places(model)
    names = {place: name for name, place in places.items()}
    for name, place in places.items():
        out_features, in_features = _linear(model, name).weight.shape
        if not has_blocks(pruning.units, place.in_attention):
            unit, leader, width = ("head", "attention_output", size) if place.in_attention else ("neuron", "ffn_out", 1)
            decides = place.role == leader
            shapes[name] = (out_features, width) if decides else (width, in_features)
            if decides:
                units[name] = unit
            else:
                leaders[name] = names[anatomy.Place(place.layer, leader)]
            continue
        rows, cols = shapes[name] = blocks[name]
        part = "attention" if place.in_attention else "ffn"
        if any(misfits((out_features, in_features), (rows, cols))):
            problems.append(
                f"{part}_block {rows}x{cols} does not divide layer {name} of {out_features}x{in_features}; "
                f"rows must divide {out_features} and cols must divide {in_features}."
            )
        elif within_heads(pruning.units) and leaves_rest(size, cols if place.role == "attention_output" else rows):
            problems.append(
                f"{part}_block {rows}x{cols} lies across heads of {size} channels in layer {name}, which hybrid_filled "
                f"fills one by one; a divisor of {size} is needed."
            )
    if problems:
        raise InputError(problems)
    return Placement(shapes, leaders, units)


def prepare(base: nn.Module, adapter: AdapterOptions, pruning: PruningOptions) -> tuple[nn.Module, list[BlockMask]]:
    """Put adapter and masks on a task model, in place.

    Without an adapter all weights of the model are trained; with one, the adapter, the biases, the
    norms and the task head are. Returns the model to call and its masks (empty for method none).
    """
    for parameter in base.parameters():
        if not parameter.numel():  # of layers that lost all heads or neurons: nothing to train, and no gradient ever
            parameter.requires_grad_(False)
    blocks = block_shapes(base, pruning)
    masks = mask_placement(base, pruning, blocks) if pruning.method != "none" else None
    if adapter.kind == "none":
        if masks is None:
            return base, []
        first = pruning.mask_init, pruning.mask_scale
        return base, mask_linears(base, masks.shapes, pruning.method, *first, placement=masks)

    from peft import get_peft_model

    from splora.adapters import attach_block_masks

    config = _CONFIGS[adapter.kind](base, adapter, blocks, {} if masks is None else masks.shapes)
    model = get_peft_model(base, config, autocast_adapter_dtype=False)
    if masks is None:
        return model, []
    return model, attach_block_masks(model, pruning.method, pruning.mask_init, pruning.mask_scale, placement=masks)


def _trained_beside(base: nn.Module) -> list[str]:
    """Modules that train whole beside any adapter: the task's head, and norms."""
    return anatomy.head_names(base) + anatomy.norm_names(base)


#: By layer: rows and columns.
_Shapes = dict[str, tuple[int, int]]


def _blocked(base: nn.Module, adapter: AdapterOptions, shapes: _Shapes, masks: _Shapes) -> dict[str, Any]:
    """What SPLoPA and SPLoRA have in common; no task type: then PEFT's plain wrapper passes every input on."""
    return {
        "target_modules": sorted(shapes),
        "modules_to_save": _trained_beside(base),
        "block_shapes": shapes,
        "mask_shapes": {name: shape for name, shape in masks.items() if shape != shapes[name]},
        "bias": "all",
        "init_range": adapter.init_range,
    }


def _splopa(base: nn.Module, adapter: AdapterOptions, shapes: _Shapes, masks: _Shapes) -> Any:
    from splora.adapters import SPLoPAConfig

    return SPLoPAConfig(
        num_prototypes=adapter.num_prototypes,
        prototype_rank=adapter.prototype_rank,
        shared_prototypes=adapter.shared_prototypes,
        shared_position_weights=adapter.shared_position_weights,
        **_blocked(base, adapter, shapes, masks),
    )


def _splora(base: nn.Module, adapter: AdapterOptions, shapes: _Shapes, masks: _Shapes) -> Any:
    from splora.adapters import SPLoRAConfig

    rank = adapter.rank if adapter.rank < 1 else int(adapter.rank)
    return SPLoRAConfig(rank=rank, **_blocked(base, adapter, shapes, masks))


def _lora(base: nn.Module, adapter: AdapterOptions, shapes: _Shapes, masks: _Shapes) -> Any:
    """PEFT's own LoRA in the same linears, with the same modules and biases trained beside it."""
    from peft import LoraConfig

    return LoraConfig(
        r=adapter.lora_rank,
        lora_alpha=adapter.lora_alpha,
        lora_dropout=0.0,
        target_modules=sorted(shapes),
        modules_to_save=_trained_beside(base),
        bias="all",  # also those of layers that lost all heads or neurons, and are no target
    )


#: By kind, what makes an adapter's settings.
_CONFIGS: dict[str, Callable[[nn.Module, AdapterOptions, _Shapes, _Shapes], Any]] = {
    "splopa": _splopa,
    "splora": _splora,
    "lora": _lora,
}


def _places(model: nn.Module) -> dict[str, anatomy.Place]:
    """The prunable linears that hold weights: in a pruned model a layer may have no heads or no neurons at all."""
    places = anatomy.encoder_linears(model)
    return {name: place for name, place in places.items() if _linear(model, name).weight.numel()}


def _linear(model: nn.Module, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer
