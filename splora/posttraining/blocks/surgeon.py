"""Which blocks of a weight can go, and what the others must be then: optimal brain surgery on blocks, row by row.

A block (i, j) of p × q values multiplies q inputs and adds to p outputs. Outputs of different block rows share no
weights, so each block row is a least-squares problem of its own over the same inputs: with H = G⁻¹ of the columns that
are left, taking block j from the rows W_i costs tr(W_ij (H_jj)⁻¹ W_ijᵀ), all other blocks of the row corrected
(Hassibi & Stork 1993; Kurtić et al. 2023, ZipLM, for whole columns). Blocks of all rows compete by that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splora.masks.binarize import keep_largest
from splora.masks.grid import BlockShape
from splora.posttraining.stat.elimination import eliminate, worth
from splora.posttraining.stat.interpolative import expand

#: What is added to the diagonal of the Gram matrix, as a part of it, when blocks that stay are solved for.
RIDGE = 0.01


@dataclass(frozen=True)
class Surgery:
    """A weight of which blocks were taken, and what the others became.

    Attributes:
        mask: blocks that stay, bool (R, C).
        weight: zero where the mask is, float64 (R·p, C·q).
        bias: (R·p,), or None where there is none.
    """

    mask: Tensor
    weight: Tensor
    bias: Tensor | None


def block_importance(gram: Tensor, weight: Tensor, block: BlockShape) -> Tensor:
    """What taking each block costs when its turn comes, all others of its rows making up for it: float64 (R, C).

    Args:
        gram: of the inputs, float64 (C·q, C·q); stays as it is.
        weight: (R·p, C·q).
        block: (p, q).

    Within a row of blocks, one that goes later never costs less: the order of elimination is kept.
    """
    p, q = block
    rows, columns = weight.shape[0] // p, weight.shape[1] // q
    found = torch.zeros(rows, columns, dtype=torch.float64, device=weight.device)
    for number, part in enumerate(weight.double().split(p)):
        found[number] = worth(eliminate(gram.clone(), part, q)).to(found)
    return found


def operate(
    matrix: Tensor,
    cross: Tensor,
    prior: Tensor,
    block: BlockShape,
    kept: int,
    *,
    means: tuple[Tensor, Tensor] | None = None,
    squares: Tensor | None = None,
    ridge: float = RIDGE,
) -> Surgery:
    """Take all but some of a weight's blocks, and fit the others to what the layer should put out.

    Args:
        matrix: ZᵀZ of the inputs, float64 (in, in); centred where there is a bias.
        cross: YᵀZ with the outputs that are wanted, float64 (out, in); likewise.
        prior: the weight as it is, (out, in), which the ridge pulls towards.
        block: (p, q), which divides the weight.
        kept: how many blocks stay.
        means: of inputs and of wanted outputs, (in,) and (out,), where there is a bias.
        squares: how much a squared error of each output matters, (out,), where block rows compete; None: all alike.
        ridge: see `RIDGE`.
    """
    p, q = block
    prior, diagonal = prior.double(), matrix.diagonal().clamp_min(0)
    every = torch.arange(matrix.shape[0], device=matrix.device)
    whole = _fit(matrix, cross, prior, every, diagonal, ridge)
    measured = whole if squares is None else whole * squares.to(whole).sqrt()[:, None]
    importance = block_importance(matrix, measured, block)
    mask = keep_largest(importance, kept) if kept else torch.zeros_like(importance, dtype=torch.bool)
    weight = torch.zeros_like(prior)
    for number in range(mask.shape[0]):
        rows = slice(number * p, (number + 1) * p)
        columns = expand(torch.nonzero(mask[number]).flatten(), q)
        if len(columns):
            weight[rows, columns] = _fit(matrix, cross[rows], prior[rows], columns, diagonal, ridge)
    bias = None if means is None else means[1].double() - weight @ means[0].double()
    return Surgery(mask, weight, bias)


def _fit(matrix: Tensor, cross: Tensor, prior: Tensor, kept: Tensor, diagonal: Tensor, ridge: float) -> Tensor:
    """argmin |Y − Z w|² + ridge Σ_j d_j |w_j − prior_j|² over weights of the kept columns, (outputs, kept)."""
    inner = matrix[kept][:, kept]
    start = prior[:, kept]
    right = cross[:, kept] - start @ inner
    damped = inner + torch.diag(ridge * diagonal[kept] + torch.finfo(inner.dtype).tiny)
    # Inputs that are always zero have nothing to solve.
    dead = diagonal[kept] == 0
    damped[dead, dead] = 1.0
    # Centred sums of inputs that hardly vary are rounding, which may not even be positive.
    more = torch.finfo(torch.float32).eps * damped.diagonal().mean()
    factor, failed = torch.linalg.cholesky_ex(damped)
    while int(failed):
        damped.diagonal().add_(more)
        more = more * 10
        factor, failed = torch.linalg.cholesky_ex(damped)
    solved: Tensor = start + torch.cholesky_solve(right.T, factor).T
    return solved
