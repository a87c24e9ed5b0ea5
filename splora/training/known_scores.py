"""Importances of blocks, heads and neurons, found before training, for scores that start from them.

`magnitude`: mean |W|. `fisher`: the mean of squared gradients of the task's loss by the masks themselves, over a few
hundred training examples with everything kept: the diagonal of the empirical Fisher information of blocks or units
(Molchanov et al., 1906.10771, whose Taylor expansion this is, one mask for all weights of a group).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from splora.masks import BlockMask, masked_layers
from splora.masks.first_scores import start_scores
from splora.tasks.data_module import TaskDataModule
from splora.tasks.features import Collator
from splora.training.losses import logits_of, task_loss
from splora.training.signals import model_inputs

#: Training examples that Fisher information is of, and those of one gradient.
EXAMPLES, BATCH = 256, 4


def known_scores(network: nn.Module, masks: Sequence[BlockMask], mask_init: str, data: TaskDataModule) -> None:
    """Start the scores of a network's masks.

    Args:
        network: with masks attached, as it will be trained.
        masks: all of them.
        mask_init: `magnitude` or `fisher`.
        data: whose training examples are looked at.
    """
    scored = [mask for mask in masks if mask.scores is not None]
    if not scored:
        return
    found = _magnitudes(network, scored) if mask_init == "magnitude" else _information(network, scored, data)
    start_scores(scored, found)


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
