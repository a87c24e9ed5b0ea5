"""STAT as its published program does it, for comparison: written anew, plain.

It differs from `splora.posttraining.stat.published` in what the paper's program chose: one fp32 batch of all samples;
activations stacked, and factorized as they are by SciPy's pivoted QR; pseudo-inverses of triangles; and the error of
each number of heads from the residual itself, carried through the output projection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import scipy.linalg
import torch
from torch import Tensor, nn

from splora import anatomy
from splora.export.cut import cut
from splora.posttraining.core.budget import Costs
from splora.posttraining.core.calls import record
from splora.posttraining.core.layer_grams import Batch, regrouped
from splora.posttraining.core.sublayers import PARTS
from splora.posttraining.stat.budget import by_depth, by_trend, published_counts
from splora.posttraining.stat.folding import plan_of
from splora.posttraining.stat.interpolative import expand

Matrix = npt.NDArray[np.float32]
#: Order of pivots and the triangle.
Factored = tuple[Tensor, Matrix]


@torch.no_grad()
def prune_plainly(model: nn.Module, batches: Sequence[Batch], costs: Costs, budget: float) -> nn.Module:
    """The pruned model.

    Args:
        model: dense, in evaluation mode; it stays as it is.
        batches: model arguments without labels; put together into one.
        costs: MACs of a head and of a neuron.
        budget: MACs of the pruned model at most.
    """
    (batch,) = regrouped(batches, 2**31)
    layers = anatomy.layers(model)
    neurons = []
    for layer, rows in zip(layers, activations(model, batch, "neurons"), strict=True):
        norms = layer.linears["ffn_out"].weight.norm(dim=0).numpy()
        neurons.append(_pivoted(rows * norms))
    errors = [
        head_errors(*factored, layer.linears["attention_output"].weight.numpy())
        for layer, factored in zip(layers, head_factors(model, batch), strict=True)
    ]
    residuals = [torch.from_numpy(np.abs(triangle.diagonal())).double() for _, triangle in neurons]
    counts = published_counts(errors, residuals, costs, budget, by_trend if layers[0].causal else by_depth)
    kept = [order[:count] for (order, _), count in zip(neurons, counts.neurons, strict=True)]
    thinner = cut(model, plan_of([torch.arange(layer.heads) for layer in layers], kept))
    for layer, into, (order, triangle), count in zip(
        layers, anatomy.layers(thinner), neurons, counts.neurons, strict=True
    ):
        weight = layer.linears["ffn_out"].weight
        norms = weight.norm(dim=0)[order]
        combined = torch.from_numpy(_combinations(triangle, count)) * norms[:count, None] / norms[None, count:]
        _correct(into.linears["ffn_out"], weight, order, count, combined)

    factors = [factored for factored, _ in head_factors(thinner, batch)]
    smaller = cut(
        thinner,
        plan_of(
            [order[:count] for (order, _), count in zip(factors, counts.heads, strict=True)],
            [torch.arange(count) for count in counts.neurons],
        ),
    )
    for layer, into, (order, triangle), count in zip(
        anatomy.layers(thinner), anatomy.layers(smaller), factors, counts.heads, strict=True
    ):
        size = layer.head_size
        combined = torch.from_numpy(_combinations(triangle, count * size))
        weight = layer.linears["attention_output"].weight
        _correct(into.linears["attention_output"], weight, expand(order, size), count * size, combined, size)
    return smaller


def activations(model: nn.Module, batch: Batch, name: str) -> Iterator[Matrix]:
    """Of each layer, what meets one of the output projections (`heads`, `neurons`): fp32 (tokens, channels)."""
    (hidden, calls), keep = record(model, batch), batch["attention_mask"].bool()
    for layer, call in zip(anatomy.layers(model), calls, strict=True):
        for part in PARTS:
            inner = part.inner(layer, hidden, call)
            if part.name == name:
                yield inner[keep].numpy()
            hidden = part.close(layer, hidden, layer.linears[part.role](inner))


def head_factors(model: nn.Module, batch: Batch) -> Iterator[tuple[Factored, Matrix]]:
    """Of each layer, the order of heads, (heads,), and factors of its contexts with the heads in that order.

    The triangle is (channels, channels), the orthogonal factor (tokens, channels).
    """
    for layer, rows in zip(anatomy.layers(model), activations(model, batch, "heads"), strict=True):
        by_head = rows.reshape(len(rows), layer.heads, layer.head_size).transpose(0, 2, 1)
        order, _ = _pivoted(by_head.reshape(-1, layer.heads))
        orthogonal, triangle = scipy.linalg.qr(rows[:, expand(order, layer.head_size).numpy()], mode="economic")
        yield (order, triangle), orthogonal


def head_errors(factored: Factored, orthogonal: Matrix, weight: Matrix) -> Tensor:
    """Norm of what is lost of a projection's output if the first 0, 1, … heads stay; float64 (heads,)."""
    order, triangle = factored
    size = len(triangle) // len(order)
    back = torch.argsort(expand(order, size)).numpy()
    found = []
    for first in range(0, len(triangle), size):
        lost = np.zeros(orthogonal.shape)
        lost[:, first:] = orthogonal[:, first:] @ triangle[first:, first:]
        found.append(np.linalg.norm(lost[:, back] @ weight.T))
    return torch.tensor(found, dtype=torch.float64)


def _pivoted(matrix: Matrix) -> Factored:
    """Of (rows, columns): pivots, int64 (columns,), and R without rows below it, (columns, columns)."""
    triangle, pivots = scipy.linalg.qr(matrix, pivoting=True, mode="r")
    return torch.from_numpy(pivots.astype(np.int64)), triangle[: matrix.shape[1]]


def _combinations(triangle: Matrix, count: int) -> Matrix:
    """Of the removed columns from the first `count`, (kept, removed)."""
    found: Matrix = np.linalg.pinv(triangle[:count, :count]) @ triangle[:count, count:]
    return found


def _correct(into: nn.Linear, weight: Tensor, order: Tensor, count: int, combined: Tensor, size: int = 1) -> None:
    """Weights of what stays, in ascending order of units, with what the rest gave.

    Args:
        weight: of the larger projection, (outputs, channels).
        order: channels, the first `count` of which stay.
        combined: (kept, removed).
        size: channels of a unit.
    """
    units = order[:count:size].argsort()
    columns = expand(units, size)
    into.weight.copy_((weight[:, order[:count]] + weight[:, order[count:]] @ combined.T)[:, columns])
