"""Interpolative decompositions from Gram matrices: which columns to keep, and the others as combinations of them.

Of a matrix A with many rows only G = AᵀA is needed: the pivoted Cholesky factorization Pᵀ G P = RᵀR has the pivots P
and the triangle R of the column-pivoted QR factorization A P = Q R. (Flynn et al. 2024, section 3; Higham 1990)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Columns between two updates of the whole matrix.
PANEL = 64


@dataclass(frozen=True)
class Pivoted:
    """A pivoted Cholesky factorization.

    Attributes:
        order: columns in the order of their pivots, int64 (columns,).
        factor: R, float64 (columns, columns), columns in the order of pivots; zero in rows from `rank` on.
        residuals: |diag R|: what is left of each pivot's column after projection on those before it, (columns,).
        rank: pivots that stand out from rounding; the columns after them are combinations of those before.
    """

    order: Tensor
    factor: Tensor
    residuals: Tensor
    rank: int


def pivoted_cholesky(gram: Tensor, tolerance: float | None = None, scale: Tensor | None = None) -> Pivoted:
    """Factorize a Gram matrix, taking at each step the column of which most is left.

    Args:
        gram: AᵀA, float64 (columns, columns).
        tolerance: part of a column's square norm below which its rest counts as zero; None: that of float64.
        scale: factors of A's columns, (columns,): the factorization is that of A · diag(scale).
    """
    columns = len(gram)
    if tolerance is None:
        tolerance = max(columns, 1) * torch.finfo(torch.float64).eps
    # Columns that are not chosen yet: their numbers, and the matrix after projection on the panels before.
    open_columns = torch.arange(columns, device=gram.device)
    trailing = gram if scale is None else gram * scale[:, None] * scale
    left = trailing.diagonal().clone()
    sizes, least = left.clone(), tolerance * left
    rows = gram.new_zeros(columns, columns)  # R with the columns where they were
    order: list[int] = []
    while len(order) < columns:
        start = len(order)
        panel = rows[start : start + PANEL, open_columns]
        rest = left[open_columns]
        chosen: list[int] = []
        for step in range(len(panel)):
            # What is rounding cannot be a pivot.
            candidate = int(torch.where(rest > least[open_columns], rest, -torch.inf).argmax())
            value = float(rest[candidate])
            if not value > float(least[open_columns[candidate]]):
                break
            row = trailing[candidate] - panel[:step, candidate] @ panel[:step]
            row /= value**0.5
            row[chosen] = 0.0
            row[candidate] = value**0.5
            panel[step] = row
            rest = rest - row.square()
            rest[candidate] = -torch.inf
            chosen.append(candidate)
        rows[start : start + len(chosen), open_columns] = panel[: len(chosen)]
        order += open_columns[chosen].tolist()
        if len(chosen) < len(panel):
            break
        stays = torch.ones(len(open_columns), dtype=torch.bool, device=gram.device)
        stays[chosen] = False
        panel = panel[:, stays]
        left[open_columns] = rest
        # One after the other: no more than two of them side by side.
        trailing = trailing[stays]
        trailing = trailing[:, stays]
        trailing.sub_(panel.T @ panel)
        open_columns = open_columns[stays]
    rank = len(order)
    chosen_mask = torch.zeros(columns, dtype=torch.bool, device=gram.device)
    chosen_mask[order] = True
    others = torch.nonzero(~chosen_mask).flatten()
    # The dependent ones by their size: any order is as good.
    others = others[sizes[others].argsort(descending=True, stable=True)]
    pivots = torch.cat([torch.tensor(order, dtype=torch.long, device=gram.device), others])
    factor = rows[:, pivots]
    return Pivoted(pivots, factor, factor.diagonal().abs().clone(), rank)


@dataclass(frozen=True)
class Combination:
    """Removed columns as combinations of kept ones.

    Attributes:
        weights: X of A[:, removed] ≈ A[:, kept] X, float64 (kept, removed).
        rank: independent directions among the kept columns, as far as rounding lets see; below their number, X is the
            least-norm solution of a rank-revealing factorization.
    """

    weights: Tensor
    rank: int


def combine(
    gram: Tensor, kept: Tensor, removed: Tensor, tolerance: float | None = None, weight: Tensor | None = None
) -> Combination:
    """Solve for the combinations: R11⁻¹ R12 of the factorization with `kept` in front, by normal equations.

    Args:
        gram: AᵀA, float64 (columns, columns).
        kept: numbers of columns, int64.
        removed: the others.
        tolerance: part of a column's square norm below which its rest counts as zero; None: that of float64.
        weight: (outputs, removed): solve for the combinations times its transpose, (kept, outputs), at once.
    """
    return solve(*normal_equations(gram, kept, removed, weight), tolerance)


def normal_equations(
    gram: Tensor, kept: Tensor, removed: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What `solve` needs for `combine`, with the same arguments: new matrices, so that `gram` can go before."""
    rows = gram.index_select(0, kept)
    right = rows.index_select(1, removed)
    return rows.index_select(1, kept), right if weight is None else right @ weight.T


def solve(matrix: Tensor, right: Tensor, tolerance: float | None = None) -> Combination:
    """Least squares by a Gram matrix that may be singular: argmin ‖A X − B‖ from AᵀA and AᵀB.

    Args:
        matrix: AᵀA, float64 (n, n).
        right: AᵀB, float64 (n, m).
        tolerance: see `combine`.
    """
    count = len(matrix)
    if not count or not right.shape[1]:
        return Combination(right.new_zeros(count, right.shape[1]), count)
    if tolerance is None:
        tolerance = count * torch.finfo(torch.float64).eps
    # Columns of unit length: what is small is then small by itself and not by its units.
    norms = matrix.diagonal().clamp_min(0).sqrt()
    inverse = torch.where(norms > 0, 1 / norms, 0.0)
    unit = (matrix * inverse[:, None]).mul_(inverse)
    unit.diagonal()[norms == 0] = 0.0
    scaled = right * inverse[:, None]
    factor, failed = torch.linalg.cholesky_ex(unit)
    if not int(failed) and float(factor.diagonal().min()) ** 2 > tolerance:
        return Combination(torch.cholesky_solve(scaled, factor) * inverse[:, None], count)
    values, vectors = torch.linalg.eigh(unit)
    held = values > tolerance * values.max().clamp_min(0)
    vectors = vectors[:, held]
    solution = vectors @ ((vectors.T @ scaled) / values[held][:, None])
    return Combination(solution * inverse[:, None], int(held.sum()))


def group_gram(gram: Tensor, size: int) -> Tensor:
    """Gram matrix of groups of columns, each read as one long column: float64 (groups, groups).

    Args:
        gram: AᵀA, (groups · size, groups · size).
        size: columns of a group.
    """
    groups = len(gram) // size if size else 0
    return gram.view(groups, size, groups, size).diagonal(dim1=1, dim2=3).sum(2)


def expand(groups: Tensor, size: int) -> Tensor:
    """Column numbers of groups of `size` neighbouring columns, int64."""
    return (groups[:, None] * size + torch.arange(size, device=groups.device)).flatten()


def group_errors(gram: Tensor, order: Tensor, size: int, weight: Tensor, tolerance: float | None = None) -> Tensor:
    """Errors at the output of a linear layer if only the first groups stay and the others are combined from them.

    Args:
        gram: AᵀA of the layer's inputs, float64 (groups · size, groups · size).
        order: of the groups.
        size: columns of a group.
        weight: of the linear layer, (outputs, groups · size).
        tolerance: see `combine`.

    Returns:
        ‖(A − A[:, kept] T) Wᵀ‖ in the Frobenius norm, of keeping 0, 1, …, all groups; 0 where it is no more than
        rounding; float64 (groups + 1,).
    """
    if tolerance is None:
        tolerance = max(len(gram), 1) * torch.finfo(torch.float64).eps
    left, weight, least = gram.clone(), weight.double(), tolerance * gram.diagonal()
    metric = weight.T @ weight
    squares = [(left * metric).sum()]
    for group in order:
        columns = expand(group.view(1), size)
        block = left[columns]
        # Directions of the group that are combinations of those before it have nothing left to project on.
        values, vectors = torch.linalg.eigh(block[:, columns])
        held = values > least[columns].max()
        half = (vectors[:, held] / values[held].sqrt()).T @ block
        left = left - half.T @ half
        left[columns], left[:, columns] = 0.0, 0.0
        squares.append((left * metric).sum())
    found = torch.stack(squares)
    # A difference of large numbers that is this small is rounding.
    return torch.where(found > tolerance * found[0], found, 0.0).sqrt()
