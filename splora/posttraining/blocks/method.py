"""Blocks of a model's weights taken without training, layer by layer, on the pruned model's own inputs.

Each layer is dealt with in four steps, in the order in which data meets its linears: query, key and value; the output
projection; `ffn_in`; `ffn_out`. What each should put out is what the dense model does; the two output projections also
make up for what the hidden states have lost before, as in `reconstruct`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.anatomy import Layer
from splora.masks.grid import BlockShape
from splora.posttraining.blocks.surgeon import operate
from splora.posttraining.core.calls import Call
from splora.posttraining.core.gram import Gram
from splora.posttraining.core.layer_grams import Batch, rows_of, token_numbers
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.stages import Report, silent
from splora.posttraining.core.states import States, Storage
from splora.posttraining.core.sublayers import PARTS, Part

#: From the pruned and the dense layer, their hidden states and calls to what linears get and what they should put out.
Look = Callable[[Layer, Layer, Tensor, Tensor, Call, Call], tuple[Tensor, Tensor]]


@torch.no_grad()
def prune_blocks(
    model: nn.Module,
    batches: Sequence[Batch],
    blocks: tuple[BlockShape, BlockShape],
    fraction: float,
    *,
    precision: Precision,
    storage: Storage = "auto",
    report: Report = silent,
) -> nn.Module:
    """A copy of a task model in which a fraction of each weight's blocks stays and the others are zero.

    Args:
        model: in evaluation mode; stays as it is.
        batches: model arguments; labels are not looked at, and padding is not counted.
        blocks: shapes in attention and in feed-forward weights, which divide them.
        fraction: of the blocks of each weight that stays.
        precision: what forward passes and products compute in.
        storage: where hidden states are kept between layers.
        report: told of progress.
    """
    student = copy.deepcopy(model)
    device = next(model.parameters()).device
    masks = [batch["attention_mask"].bool().to(device) for batch in batches]
    own, taught = States(student, batches, storage), States(model, batches, storage)
    pairs = list(zip(anatomy.layers(student), anatomy.layers(model), strict=True))
    for number, (layer, dense) in enumerate(pairs):
        for part, block in zip(PARTS, blocks, strict=True):
            report("blocks", f"layer {number} {part.name}", number / len(pairs))
            for roles, look in _steps(part, layer):
                linears = [layer.linears[role] for role in roles]
                gram = Gram(linears[0].in_features, sum(each.out_features for each in linears), device, precision)
                with precision.forward(device):
                    for index, keep in enumerate(masks):
                        inputs, wanted = look(
                            layer, dense, own[index], taught[index], own.call(index, number), taught.call(index, number)
                        )
                        tokens = token_numbers(keep)
                        gram.add(rows_of(inputs, tokens), rows_of(wanted, tokens))
                _operate(linears, gram, block, fraction)
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
        wanted = torch.cat([dense.linears[role](given) for role in roles], dim=-1)
        return part.enter(layer, hidden), wanted

    def after(
        layer: Layer, dense: Layer, hidden: Tensor, above: Tensor, call: Call, dense_call: Call
    ) -> tuple[Tensor, Tensor]:
        projected = dense.linears[part.role](part.inner(dense, above, dense_call))
        return part.inner(layer, hidden, call), above + projected.float() - hidden

    yield roles, before
    yield (part.role,), after


def _operate(linears: Sequence[nn.Linear], gram: Gram, block: BlockShape, fraction: float) -> None:
    """Take blocks from linears that get the same inputs, in place; each keeps its own fraction."""
    start = 0
    for linear in linears:
        if not linear.weight.numel():  # a layer that lost all heads or neurons before
            continue
        outputs = slice(start, start + linear.out_features)
        start = outputs.stop
        rows = max(gram.rows, 1.0)
        if linear.bias is not None:
            matrix, cross = gram.centred()
            means = gram.sum / rows, gram.target_sum[outputs] / rows
        else:
            matrix, cross, means = gram.matrix.clone(), gram.cross, None
        done = operate(matrix, cross[outputs], linear.weight, block, fraction, means=means)
        linear.weight.copy_(done.weight)
        if done.bias is not None:
            linear.bias.copy_(done.bias)
