"""What heads, neurons and blocks are worth, as pruning without training sees it: scores that a training starts from.

The worth of a head or neuron is the error that the predictions gain when its turn to go comes, all others of its layer
making up for it (`elimination`, measured as `stat_default` does, so that layers compare). That of a block is the same
for its block row of one weight (`block_surgeon`), as a part of what the linear puts out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.masks.grid import BlockShape
from splora.posttraining.blocks.surgeon import block_importance
from splora.posttraining.core.gram import Gram
from splora.posttraining.core.layer_grams import Batch, rows_of, token_numbers
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.stages import silent
from splora.posttraining.core.states import States, Storage
from splora.posttraining.core.sublayers import PARTS
from splora.posttraining.stat.default import chosen_by, removal_paths, sensitivities
from splora.posttraining.stat.elimination import worth


def unit_importances(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    first_token_only: bool,
    precision: Precision,
    seed: int = 0,
    storage: Storage = "auto",
) -> list[dict[str, Tensor]]:
    """By layer, of its `heads` and its `neurons`: float64 (heads,) and (neurons,), comparable between layers.

    Args:
        model: a task model in evaluation mode, dense or pruned.
        batches: model arguments; labels are not looked at.
        first_token_only: whether the task head reads the first token alone.
        precision: what forward passes and products compute in.
        seed: of random directions.
        storage: where hidden states are kept between layers.
    """
    metrics = sensitivities(model, batches, seed, precision)
    paths, _ = removal_paths(
        model,
        chosen_by(model, batches),
        metrics,
        {"first_token_only": first_token_only, "storage": storage, "precision": precision, "outputs": None},
        silent,
        bias=True,
    )
    layers = len(anatomy.layers(model))
    return [{part.name: worth(paths[part.name][number]) for part in PARTS} for number in range(layers)]


@torch.no_grad()
def block_importances(
    model: nn.Module,
    batches: Sequence[Batch],
    blocks: Mapping[str, BlockShape],
    *,
    precision: Precision,
    storage: Storage = "auto",
) -> dict[str, Tensor]:
    """By linear, of its blocks (p, q): float64 (R, C), as parts of Σ y² of what the linear puts out, bias left out.

    Args:
        model: a task model in evaluation mode.
        batches: model arguments; labels are not looked at, and padding is not counted.
        blocks: block shape of each linear that is asked for, by full name; linears that hold no weights have none.
        precision: what forward passes and products compute in.
        storage: where hidden states are kept between layers.
    """
    device = next(model.parameters()).device
    masks = [batch["attention_mask"].bool().to(device) for batch in batches]
    tokens = [token_numbers(keep) for keep in masks]
    states = States(model, batches, storage)
    names = {place: name for name, place in anatomy.encoder_linears(model).items()}
    found: dict[str, Tensor] = {}

    for number, layer in enumerate(anatomy.layers(model)):
        for part in PARTS:
            before = layer.linears[part.inputs[-1]].in_features
            entered = Gram(before, device=device, precision=precision)
            met = Gram(layer.linears[part.role].in_features, device=device, precision=precision)
            with precision.forward(device):
                for index in range(len(masks)):
                    hidden = states[index]
                    inner = part.inner(layer, hidden, states.call(index, number))
                    entered.add(rows_of(part.enter(layer, hidden), tokens[index]))
                    met.add(rows_of(inner, tokens[index]))
                    states[index] = part.close(layer, hidden, layer.linears[part.role](inner))
            for role, gram in (*((role, entered) for role in part.inputs_of(layer)), (part.role, met)):
                name = names[anatomy.Place(number, role)]
                if name in blocks:
                    found[name] = _relative(layer.linears[role], gram, blocks[name])
    return found


def _relative(linear: nn.Linear, gram: Gram, block: BlockShape) -> Tensor:
    """A linear's block importances over the squares of all that it puts out."""
    products = gram.centred()[0] if linear.bias is not None else gram.matrix.clone()
    weight = linear.weight.double()
    total = ((weight @ products) * weight).sum()
    return block_importance(products, weight, block) / total.clamp_min(torch.finfo(total.dtype).tiny)
