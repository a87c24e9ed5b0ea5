"""Importances of blocks, heads and neurons, found before training, for scores that start from them.

`magnitude`: mean |W|. `fisher`: the mean of squared gradients of the task's loss by the masks themselves, over a few
hundred training examples with everything kept: the diagonal of the empirical Fisher information of blocks or units
(Molchanov et al., 1906.10771, whose Taylor expansion this is, one mask for all weights of a group). `stat`: what would
be lost by taking them while all others make up for it, see `posttraining.importance`; no labels are looked at, and the
model is as it was before masks and adapters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from splora import anatomy
from splora.masks import BlockMask, Placement, masked_layers
from splora.masks.criteria import KNOWN_INITS
from splora.masks.first_scores import start_scores
from splora.posttraining.core.budget import Costs
from splora.tasks.data_module import TaskDataModule
from splora.tasks.features import Collator
from splora.training.losses import logits_of, task_loss
from splora.training.model import block_shapes, mask_placement, prepare
from splora.training.options import AdapterOptions, PruningOptions
from splora.training.signals import model_inputs

#: Training examples that importances are of, and those of one gradient.
EXAMPLES, BATCH = 256, 4
#: What PEFT puts before the names of a base model's modules.
_WRAPPED = "base_model.model."


def prepare_to_train(
    base: nn.Module, adapter: AdapterOptions, pruning: PruningOptions, data: TaskDataModule, device: torch.device | None
) -> tuple[nn.Module, list[BlockMask]]:
    """Put adapter and masks on a task model as `prepare` does; masks know what they cost, and scores begin.

    Args:
        data: whose training examples importances are of, and whose lengths costs.
        device: where importances are computed; None: scores are not to begin, a checkpoint brings them.
    """
    importances: dict[str, Tensor] | None = None
    if device is not None and pruning.mask_init == "stat" and pruning.criterion.has_scores:
        importances = stat_importances(
            base.to(device), mask_placement(base, pruning, block_shapes(base, pruning)), data
        )
        base.cpu()
    costs = Costs.of(base, data.mean_tokens) if pruning.threshold_of == "macs" else None
    network, masks = prepare(base, adapter, pruning)
    if costs is not None:
        for mask in masks:
            mask.cost = {"head": float(costs.head), "neuron": float(costs.neuron)}.get(mask.unit)
    if device is not None and pruning.mask_init in KNOWN_INITS:
        known_scores(network, masks, pruning.mask_init, data, importances)
    return network, masks


def known_scores(
    network: nn.Module,
    masks: Sequence[BlockMask],
    mask_init: str,
    data: TaskDataModule,
    importances: Mapping[str, Tensor] | None = None,
) -> None:
    """Start the scores of a network's masks.

    Args:
        network: with masks attached, as it will be trained.
        masks: all of them.
        mask_init: `magnitude`, `fisher` or `stat`.
        data: whose training examples are looked at.
        importances: for `stat`, what `stat_importances` found on the bare model.
    """
    scored = [mask for mask in masks if mask.scores is not None]
    if not scored:
        return
    if mask_init == "stat":
        assert importances is not None
        layers: dict[str, Any] = masked_layers(network)
        names = {id(layer.block_mask): name.removeprefix(_WRAPPED) for name, layer in layers.items()}
        found = [importances[names[id(mask)]].flatten() for mask in scored]
    elif mask_init == "magnitude":
        found = _magnitudes(network, scored)
    else:
        found = _information(network, scored, data)
    start_scores(scored, found)


def stat_importances(base: nn.Module, placement: Placement, data: TaskDataModule) -> dict[str, Tensor]:
    """By linear whose mask decides, the worth of its blocks or units.

    Args:
        base: a task model without masks and adapters.
        placement: where its masks will lie.
        data: whose training examples are looked at.
    """
    from splora.posttraining.blocks.worth import block_importances
    from splora.posttraining.core.calibration import draw
    from splora.posttraining.core.layer_grams import arguments_of
    from splora.posttraining.core.precision import Precision
    from splora.posttraining.importance import unit_importances

    batches, precision = arguments_of(list(draw(data, EXAMPLES))), Precision.parse("auto")
    own = {name: shape for name, shape in placement.shapes.items() if name not in placement.leaders}
    blocks = {name: shape for name, shape in own.items() if name not in placement.units}
    training = base.training
    base.eval()
    try:
        found: dict[str, Tensor] = {}
        if blocks:
            found, _ = block_importances(base, batches, blocks, precision=precision, seed=data.seed)
        if placement.units:
            first = anatomy.reads_first_token(base)
            of = unit_importances(base, batches, first_token_only=first, precision=precision, seed=data.seed)
            places = anatomy.encoder_linears(base)
            parts = {"head": "heads", "neuron": "neurons"}
            found |= {name: of[places[name].layer][parts[unit]] for name, unit in placement.units.items()}
    finally:
        base.train(training)
    return found


@torch.no_grad()
def _magnitudes(network: nn.Module, masks: Sequence[BlockMask]) -> list[Tensor]:
    layers: dict[str, Any] = masked_layers(network)
    means = {id(layer.block_mask): layer.block_means for layer in layers.values()}
    return [mask.mean_magnitudes(means[id(mask)]) for mask in masks]


def _information(network: nn.Module, masks: Sequence[BlockMask], data: TaskDataModule) -> list[Tensor]:
    """Mean squared gradients of the loss by each mask, (R, C) each, with everything kept and dropout off."""
    features = data.features("train")
    rows = np.random.default_rng(data.seed).permutation(len(features))[:EXAMPLES]
    collator = Collator(features, data.pad_token_id, data.width)
    device = next(network.parameters()).device
    scores = [mask.scores for mask in masks if mask.scores is not None]
    found = [torch.zeros_like(each, dtype=torch.float64) for each in scores]
    training = network.training
    network.eval()
    for mask in masks:
        mask.fix(torch.ones(mask.grid, dtype=torch.bool))
    try:
        for start in range(0, len(rows), BATCH):
            batch = {name: values.to(device) for name, values in collator(rows[start : start + BATCH].tolist()).items()}
            loss = task_loss(logits_of(network(**model_inputs(batch))), batch)
            for total, gradient in zip(found, torch.autograd.grad(loss, scores), strict=True):
                total += gradient.double().square()
    finally:
        for mask in masks:
            mask.fixed = None
        network.train(training)
    return found
