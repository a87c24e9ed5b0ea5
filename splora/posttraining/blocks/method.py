"""Blocks of a model's weights taken without training, layer by layer, on the pruned model's own inputs.

Each layer is dealt with in four steps, in the order in which data meets its linears: query, key and value; the output
projection; `ffn_in`; `ffn_out`. What each should put out is what the dense model does; the two output projections also
make up for what the hidden states have lost before, as in `reconstruct`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.anatomy import Layer, Linear
from splora.masks.binarize import kept_count
from splora.masks.grid import BlockShape
from splora.posttraining.blocks.surgeon import operate
from splora.posttraining.blocks.worth import block_importances
from splora.posttraining.core.calls import Call
from splora.posttraining.core.gram import Gram
from splora.posttraining.core.layer_grams import Batch, rows_of, token_numbers
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.stages import Report, silent
from splora.posttraining.core.states import States, Storage
from splora.posttraining.core.sublayers import PARTS, Part

#: Inputs whose variance is no more than this part of their mean square are constants, but for rounding.
STILL = 1e-5
#: From the pruned and the dense layer, their hidden states and calls to what linears get and what they should put out.
Look = Callable[[Layer, Layer, Tensor, Tensor, Call, Call], tuple[Tensor, Tensor]]


@torch.no_grad()
def prune_blocks(
    model: nn.Module,
    batches: Sequence[Batch],
    blocks: tuple[BlockShape, BlockShape],
    fraction: float,
    *,
    each_weight: bool,
    precision: Precision,
    seed: int = 0,
    storage: Storage = "auto",
    report: Report = silent,
) -> nn.Module:
    """A copy of a task model in which a fraction of the blocks stays and the others are zero.

    Args:
        model: in evaluation mode; stays as it is.
        batches: model arguments; labels are not looked at, and padding is not counted.
        blocks: shapes in attention and in feed-forward weights, which divide them.
        fraction: of the blocks that stays.
        each_weight: of each weight the same; else weights keep what they need, by what blocks are worth to the
            predictions.
        precision: what forward passes and products compute in.
        seed: of random directions.
        storage: where hidden states are kept between layers.
        report: told of progress.
    """
    student = copy.deepcopy(model)
    of_parts = {part.role: block for part, block in zip(PARTS, blocks, strict=True)}
    of_parts |= {role: of_parts[part.role] for part in PARTS for role in part.inputs}
    layers = anatomy.layers(model)
    shapes = {
        name: of_parts[place.role]
        for name, place in anatomy.encoder_linears(model).items()
        if layers[place.layer].matrices[place.role].weight.numel()
    }
    report("blocks", "what blocks are worth", 0.0)
    worth, squares = block_importances(model, batches, shapes, precision=precision, seed=seed, storage=storage)
    places = {place: name for name, place in anatomy.encoder_linears(model).items()}
    counts = shares(worth, shapes, fraction, each_weight)
    device = next(model.parameters()).device
    masks = [batch["attention_mask"].bool().to(device) for batch in batches]
    own, taught = States(student, batches, storage), States(model, batches, storage)
    pairs = list(zip(anatomy.layers(student), anatomy.layers(model), strict=True))
    for number, (layer, dense) in enumerate(pairs):
        for part, block in zip(PARTS, blocks, strict=True):
            report("blocks", f"layer {number} {part.name}", number / len(pairs))
            for roles, look in _steps(part, layer):
                linears = [layer.matrices[role] for role in roles]
                gram = Gram(linears[0].in_features, sum(each.out_features for each in linears), device, precision)
                with precision.forward(device):
                    for index, keep in enumerate(masks):
                        inputs, wanted = look(
                            layer, dense, own[index], taught[index], own.call(index, number), taught.call(index, number)
                        )
                        tokens = token_numbers(keep)
                        gram.add(rows_of(inputs, tokens), rows_of(wanted, tokens))
                names = [places[anatomy.Place(number, role)] for role in roles]
                _operate(linears, gram, block, [(counts.get(name, 0), squares.get(name)) for name in names])
            with precision.forward(device):
                for index in range(len(masks)):
                    for states, of in ((own, layer), (taught, dense)):
                        inner = part.inner(of, states[index], states.call(index, number))
                        states[index] = part.close(of, states[index], of.linears[part.role](inner))
    report("blocks", "", 1.0)
    return student


def _steps(part: Part, of: Layer) -> Iterator[tuple[tuple[str, ...], Look]]:
    """The linears before the output projection, then that itself."""
    roles = part.inputs_of(of)

    def before(layer: Layer, dense: Layer, hidden: Tensor, above: Tensor, _: Call, __: Call) -> tuple[Tensor, Tensor]:
        given = part.enter(dense, above)
        wanted = torch.cat([dense.matrices[role](given) for role in roles], dim=-1)
        return part.enter(layer, hidden), wanted

    def after(
        layer: Layer, dense: Layer, hidden: Tensor, above: Tensor, call: Call, dense_call: Call
    ) -> tuple[Tensor, Tensor]:
        projected = dense.linears[part.role](part.inner(dense, above, dense_call))
        return part.inner(layer, hidden, call), above + projected.float() - hidden

    yield roles, before
    yield (part.role,), after


def shares(
    worth: Mapping[str, Tensor], shapes: Mapping[str, BlockShape], fraction: float, each_weight: bool
) -> dict[str, int]:
    """How many blocks each weight keeps, so that a fraction of all their weights stays.

    Args:
        worth: of the blocks of each weight, (R, C), comparable between weights.
        shapes: of its blocks; where they differ, what a block is worth is told by its weights.
        fraction: of the weights that stays.
        each_weight: of each the same.
    """
    if each_weight:
        return {name: kept_count(fraction, values.numel()) for name, values in worth.items()}
    names = list(worth)
    areas = torch.cat([torch.full((worth[name].numel(),), float(shapes[name][0] * shapes[name][1])) for name in names])
    owners = torch.cat([torch.full((worth[name].numel(),), number) for number, name in enumerate(names)])
    each = torch.cat([worth[name].flatten().double().cpu() for name in names]) / areas
    order = each.argsort(descending=True, stable=True)
    kept = order[areas[order].cumsum(0) <= fraction * float(areas.sum()) + 1e-6]
    counts = torch.bincount(owners[kept], minlength=len(names)).tolist()
    return dict(zip(names, counts, strict=True))


def _operate(
    linears: Sequence[Linear], gram: Gram, block: BlockShape, kept: Sequence[tuple[int, Tensor | None]]
) -> None:
    """Take blocks from linears that get the same inputs, in place.

    Args:
        kept: of each, how many blocks stay, and how much squared errors of its outputs matter.
    """
    start = 0
    for linear, (count, squares) in zip(linears, kept, strict=True):
        if not linear.weight.numel():  # a layer that lost all heads or neurons before
            continue
        outputs = slice(start, start + linear.out_features)
        start = outputs.stop
        rows = max(gram.rows, 1.0)
        if linear.bias is not None:
            matrix, cross = gram.centred()
            # What never varies leaves rounding here, which would be solved for.
            still = matrix.diagonal() <= STILL * gram.matrix.diagonal()
            matrix[still], matrix[:, still], cross[:, still] = 0.0, 0.0, 0.0
            means = gram.sum / rows, gram.target_sum[outputs] / rows
        else:
            matrix, cross, means = gram.matrix.clone(), gram.cross, None
        done = operate(matrix, cross[outputs], linear.weight, block, count, means=means, squares=squares)
        linear.weight.copy_(done.weight)
        if done.bias is not None:
            linear.bias.copy_(done.bias)
