"""Rescaling: what stays makes up for what is gone, layer by layer (Kwon et al. 2022, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.anatomy import Linear
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.states import States, Storage
from splora.posttraining.core.sublayers import PARTS
from splora.posttraining.fisher.least_squares import NormalEquations, scales

#: Factors outside this range mean an ill-conditioned system: the layer keeps its weights.
LARGEST_FACTOR = 10.0
#: Multiples of the damping that are tried until factors are in range.
STRONGER = (1, 10, 100, 1000)

Batch = dict[str, Tensor]
FP32 = Precision("fp32")


@dataclass
class Rescaling:
    """What was done.

    Attributes:
        factors: per sub-layer (`layer.3.heads`, `layer.3.neurons`), the factors that were folded into its weights.
        skipped: sub-layers whose factors were out of range, with the largest magnitude among them.
        state_bytes: hidden states of teacher and student held between layers, at their largest.
    """

    factors: dict[str, Tensor] = field(default_factory=dict)
    skipped: dict[str, float] = field(default_factory=dict)
    state_bytes: int = 0


@torch.no_grad()
def rescale(
    student: nn.Module,
    teacher: nn.Module,
    batches: Sequence[Batch],
    *,
    first_token_only: bool,
    damping: float = 1.0,
    correct_bias: bool = False,
    storage: Storage = "auto",
    precision: Precision = FP32,
    progress: Callable[[str, int], None] | None = None,
) -> Rescaling:
    """Fit and fold in the scaling factors of every layer of `student`, from the first to the last.

    A sub-layer is to put out x' + sublayer'(x') − x: the teacher's residual sum, less the student's own residual.

    Args:
        student: the pruned model; its output projections' weights are changed in place.
        teacher: a less pruned or dense model of the same shape otherwise.
        batches: `input_ids`, `attention_mask` and what else the embeddings take; padding is not counted.
        first_token_only: in the last layer only the first token of a sequence counts (a classifier reads no other).
        damping: of the least squares, see `least_squares.scales`.
        correct_bias: let the output projection's bias take up what pruned parts put out on average.
        storage: where hidden states are kept between layers.
        precision: what forward passes and products compute in.
        progress: called with the name of each sub-layer and the number of those before it.
    """
    done = Rescaling()
    device = next(student.parameters()).device
    masks = [batch["attention_mask"].bool().to(device) for batch in batches]
    own, taught = States(student, batches, storage), States(teacher, batches, storage)
    done.state_bytes = own.bytes + taught.bytes
    pairs = list(zip(anatomy.layers(student), anatomy.layers(teacher), strict=True))
    for number, (layer, model_layer) in enumerate(pairs):
        counted = _first_tokens(masks) if first_token_only and number == len(pairs) - 1 else masks
        for part_number, part in enumerate(PARTS):
            name = f"layer.{number}.{part.name}"
            if progress is not None:
                progress(name, 2 * number + part_number)
            linear = layer.linears[part.role]
            equations = NormalEquations(linear.weight, part.size(layer), correct_bias and linear.bias is not None)
            for index in range(len(masks)):
                with precision.forward(device):
                    hidden, above = own[index], taught[index]
                    inner = part.inner(layer, hidden, own.call(index, number))
                    met = part.inner(model_layer, above, taught.call(index, number))
                    projected = model_layer.linears[part.role](met)
                    taught[index] = part.close(model_layer, above, projected)
                rows = counted[index]
                target = above[rows] + projected[rows].float() - hidden[rows]
                if linear.bias is not None:
                    target -= linear.bias
                with precision.products(device):
                    equations.add(inner[rows], target)
            _fold(linear, equations, part.size(layer), damping, name, done)
            for index in range(len(masks)):
                with precision.forward(device):
                    hidden = own[index]
                    inner = part.inner(layer, hidden, own.call(index, number))
                    own[index] = part.close(layer, hidden, linear(inner))
    return done


def _fold(linear: Linear, equations: NormalEquations, size: int, damping: float, name: str, done: Rescaling) -> None:
    """Solve, and scale the columns of the output weights, unless a factor is out of range."""
    if not linear.in_features:
        return
    system = equations.system()
    for stronger in STRONGER:
        factors = scales(*system, damping * stronger)
        largest = float(factors.abs().max())
        if largest <= LARGEST_FACTOR:
            break
    else:
        done.skipped[name] = largest
        return
    done.factors[name] = factors
    if equations.with_bias:
        linear.bias.add_(equations.bias(factors).to(linear.bias))
    linear.weight.mul_(factors.repeat_interleave(size).to(linear.weight))


def _first_tokens(masks: Sequence[Tensor]) -> list[Tensor]:
    """Masks in which only the first token of each sequence is True."""
    firsts = [torch.zeros_like(mask) for mask in masks]
    for first in firsts:
        first[:, 0] = True
    return firsts
