"""Output projections re-solved from the first layer to the last, on what the pruned model really feeds them.

Each projection is to put out what the dense model has after this sub-layer less what the pruned model has before it,
so that errors of layers below are made up for instead of piling up (as in Park et al. 2024, K-prune, and Kwon et al.
2022). Least squares with a ridge that pulls towards the weights as they are; its strength is the one that predicts the
other half of the calibration sequences best, which Gram matrices of both halves tell without another pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.anatomy import Linear
from splora.offload import device_of
from splora.posttraining.core.calls import in_turn
from splora.posttraining.core.gram import Gram
from splora.posttraining.core.layer_grams import OTHERS, Batch, rows_of, token_numbers
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.states import Kept, Outputs, States, Storage
from splora.posttraining.core.sublayers import PARTS

#: Ridges that are tried, as parts of the Gram matrix's diagonal.
RIDGES = (0.0004, 0.002, 0.01, 0.05, 0.25, 1.25, 6.25)
#: Random combinations of output channels that ridges are compared on: their errors stand for those of all channels.
COMPARED = 64


@dataclass
class Reconstruction:
    """What was done.

    Attributes:
        ridges: per sub-layer (`layer.3.heads`, …), the ridge that was chosen.
        state_bytes: hidden states held between layers, at their largest.
    """

    ridges: dict[str, float] = field(default_factory=dict)
    state_bytes: int = 0


@torch.no_grad()
def reconstruct(
    student: nn.Module,
    teacher: nn.Module,
    batches: Sequence[Batch],
    *,
    first_token_only: bool,
    storage: Storage = "auto",
    precision: Precision,
    outputs: Outputs | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> Reconstruction:
    """Re-solve weights, and biases where there are any, of all output projections of `student`, in place.

    Args:
        student: the pruned model.
        teacher: the dense one.
        batches: model arguments without labels; padding is not counted.
        first_token_only: in the last layer the first token of each sequence counts, the others by `layer_grams.OTHERS`.
        storage: where hidden states are kept between layers.
        precision: what forward passes and products compute in.
        outputs: what the teacher's output projections put out for these batches, used up; None: it is computed.
        progress: called with the name of each sub-layer and the number of those before it.
    """
    done = Reconstruction()
    device = device_of(student)
    masks = [batch["attention_mask"].bool().to(device) for batch in batches]
    halves = _halves(masks)
    own, taught = States(student, batches, storage), States(teacher, batches, storage)
    done.state_bytes = own.bytes + taught.bytes
    # Neighbouring layers mostly want the same ridge: each search starts where that of the layer before ended.
    chosen = {part.name: len(RIDGES) // 2 for part in PARTS}
    layers, dense_layers = anatomy.layers(student), anatomy.layers(teacher)
    for number, (layer, dense) in enumerate(in_turn(layers, dense_layers)):
        last = first_token_only and number == len(layers) - 1
        for part_number, part in enumerate(PARTS):
            name, linear = f"layer.{number}.{part.name}", layer.linears[part.role]
            if progress is not None:
                progress(name, 2 * number + part_number)
            # What the projection gets is made twice where it is too much to keep.
            kept = Kept()
            grams = [Gram(linear.in_features, linear.out_features, device, precision) for _ in range(2)]
            # One context for all batches: within it weights are cast once.
            with precision.forward(device):
                for index in range(len(masks)):
                    hidden, above = own[index], taught[index]
                    inner = kept.put(part.inner(layer, hidden, own.call(index, number)))
                    projected = outputs.take() if outputs is not None else None
                    if projected is None:
                        projected = dense.linears[part.role](part.inner(dense, above, taught.call(index, number)))
                    taught[index] = part.close(dense, above, projected)
                    target = above + projected.float() - hidden
                    for gram, (sequences, tokens) in zip(grams, halves[index], strict=True):
                        if last:
                            gram.add(inner[sequences, 0], target[sequences, 0])
                        gram.add(rows_of(inner, tokens), rows_of(target, tokens), OTHERS if last else 1.0)
            chosen[part.name] = _solve(linear, grams, chosen[part.name])
            done.ridges[name] = RIDGES[chosen[part.name]]
            with precision.forward(device):
                for index in range(len(masks)):
                    hidden = own[index]
                    known = kept.whole
                    inner = kept.tensors[index] if known else part.inner(layer, hidden, own.call(index, number))
                    own[index] = part.close(layer, hidden, linear(inner))
    return done


class RidgeSystem:
    """argmin Σ |y − W z − b|² + ridge · Σ_j d_j |w_j − prior_j|², d the diagonal of the centred Gram matrix.

    Args:
        gram: of activations, with targets.
        prior: (targets, channels).
        dtype: what systems are solved in.
        with_bias: without one, b is zero and nothing is centred.
    """

    def __init__(
        self, gram: Gram, prior: Tensor, dtype: torch.dtype = torch.float64, *, with_bias: bool = True
    ) -> None:
        matrix, cross = gram.centred() if with_bias else (gram.matrix.clone(), gram.cross)
        diagonal = matrix.diagonal().clamp_min(0)
        # Columns of unit length; dead channels keep their weights.
        scale = torch.where(diagonal > 0, diagonal.rsqrt(), 0.0)
        self._right = ((cross - prior.double() @ matrix) * scale).to(dtype)
        self._unit = (matrix.mul_(scale[:, None]).mul_(scale)).to(dtype)
        self._unit.diagonal().masked_fill_(diagonal == 0, 1.0)
        self._scale, self._prior = scale.to(dtype), prior.to(dtype)
        rows = max(gram.rows, 1.0)
        self._means, self._target_means = (gram.sum / rows).to(dtype), (gram.target_sum / rows).to(dtype)
        if not with_bias:
            self._means, self._target_means = self._means.zero_(), self._target_means.zero_()

    def solve(self, ridge: float) -> tuple[Tensor, Tensor]:
        """Weights (targets, channels) and bias (targets,); `ridge` is 0 or larger."""
        epsilon = torch.finfo(self._unit.dtype).eps * max(len(self._unit), 1)
        # In place and back: a copy of the matrix is what there is no memory for.
        diagonal = self._unit.diagonal()
        undamped = diagonal.clone()
        diagonal.add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(self._unit)
        while int(failed):
            diagonal.add_(epsilon)
            epsilon *= 10
            factor, failed = torch.linalg.cholesky_ex(self._unit)
        diagonal.copy_(undamped)
        weight = self._prior + torch.cholesky_solve(self._right.T, factor).T * self._scale
        return weight, self._target_means - weight @ self._means


def squared_error(gram: Gram, weight: Tensor, bias: Tensor) -> float:
    """Σ |y − W z − b|² over the rows of a Gram matrix with targets."""
    if weight.dtype != torch.float64:
        # The sums are float64, the product that costs most is not.
        product = (weight @ gram.matrix.to(weight.dtype)).double()
        weight, bias = weight.double(), bias.double()
    else:
        product = weight @ gram.matrix
    value = gram.target_square + ((product - 2 * gram.cross) * weight).sum()
    return float(value + bias @ (gram.rows * bias + 2 * (weight @ gram.sum) - 2 * gram.target_sum))


def _solve(linear: Linear, halves: Sequence[Gram], first: int) -> int:
    """Fit one projection in place; the number of the ridge that was chosen, searched for from `first` on."""
    prior, with_bias = linear.weight.double(), linear.bias is not None
    chosen = first
    if linear.in_features and all(half.rows for half in halves):
        signs = _signs(len(prior)).to(prior)
        compared = [half.of_targets(signs) for half in halves] if len(signs) < len(prior) else halves
        systems = [
            RidgeSystem(half, signs @ prior if compared is not halves else prior, torch.float32, with_bias=with_bias)
            for half in compared
        ]
        found: dict[int, float] = {}

        def held_out(number: int) -> float:
            if number not in found:
                found[number] = sum(
                    squared_error(other, *system.solve(RIDGES[number]))
                    for system, other in zip(systems, reversed(compared), strict=True)
                )
            return found[number]

        for step in (-1, 1):
            while 0 <= chosen + step < len(RIDGES) and held_out(chosen + step) < held_out(chosen):
                chosen += step
        systems.clear()
    whole = halves[0]
    whole.absorb(halves[1])
    weight, bias = RidgeSystem(whole, prior, torch.float32, with_bias=with_bias).solve(RIDGES[chosen])
    linear.weight.copy_(weight)
    if with_bias:
        linear.bias.copy_(bias)
    return chosen


def _signs(channels: int) -> Tensor:
    """`COMPARED` random combinations of channels whose squares sum up to those of all on average, always the same."""
    drawn = torch.randint(0, 2, (COMPARED, channels), generator=torch.Generator().manual_seed(0))
    signs: Tensor = (2.0 * drawn - 1.0) / COMPARED**0.5
    return signs


def _halves(masks: Sequence[Tensor]) -> list[list[tuple[Tensor, Tensor]]]:
    """Of each batch, one half and the other, every other sequence over all: numbers of sequences and of their tokens.

    Tokens are counted over the whole batch, padding included, but only those that are no padding are in it.
    """
    found, start = [], 0
    for mask in masks:
        even = (torch.arange(len(mask), device=mask.device) + start) % 2 == 0
        found.append([(torch.nonzero(half)[:, 0], token_numbers(mask & half[:, None])) for half in (even, ~even)])
        start += len(mask)
    return found
