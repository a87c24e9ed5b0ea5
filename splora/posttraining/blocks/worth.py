"""What blocks of a model's weights are worth to its predictions, before any is taken.

The error that a block leaves when its turn to go comes, all others of its row making up for it (`surgeon`), weighed by
what squared errors of the row's outputs do to the predictions (the diagonal of F, `sensitivity.output_squares`): so
blocks of all weights compare, and one budget is spent where it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.anatomy import Linear
from splora.masks.grid import BlockShape
from splora.posttraining.blocks.surgeon import block_importance
from splora.posttraining.core.gram import Gram
from splora.posttraining.core.layer_grams import Batch, rows_of, thinned, token_numbers
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.sensitivity import output_squares
from splora.posttraining.core.states import States, Storage
from splora.posttraining.core.sublayers import PARTS

#: Tokens and sequences at least whose gradients are looked at.
SAMPLE = (8192, 64)


@torch.no_grad()
def block_importances(
    model: nn.Module,
    batches: Sequence[Batch],
    blocks: Mapping[str, BlockShape],
    *,
    precision: Precision,
    seed: int = 0,
    storage: Storage = "auto",
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """By linear: what its blocks (p, q) are worth, float64 (R, C), and what squared errors of its outputs do, (R·p,).

    Args:
        model: a task model in evaluation mode.
        batches: model arguments; labels are not looked at, and padding is not counted.
        blocks: block shape of each linear that is asked for, by full name; linears that hold no weights have none.
        precision: what forward passes and products compute in.
        seed: of random directions.
        storage: where hidden states are kept between layers.
    """
    of_outputs = output_squares(model, thinned(batches, *SAMPLE), seed, precision)
    device = next(model.parameters()).device
    masks = [batch["attention_mask"].bool().to(device) for batch in batches]
    tokens = [token_numbers(keep) for keep in masks]
    states = States(model, batches, storage)
    names = {place: name for name, place in anatomy.encoder_linears(model).items()}
    found: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}

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
                    squares[name] = of_outputs[number, role]
                    found[name] = _worth(layer.matrices[role], gram, squares[name], blocks[name])
    return found, squares


def _worth(linear: Linear, gram: Gram, squares: Tensor, block: BlockShape) -> Tensor:
    products = gram.centred()[0] if linear.bias is not None else gram.matrix.clone()
    weight = linear.weight.double() * squares.sqrt()[:, None]
    return block_importance(products / max(gram.rows, 1.0), weight, block)
