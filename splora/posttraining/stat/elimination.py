"""The order in which inputs of a linear layer can go, by what is lost although the others make up for them.

Least squares by the Gram matrix G of the inputs, with the output's errors measured through R (see `sensitivity.root`):
without group g the error grows by tr(V_g (H_gg)⁻¹ V_gᵀ), H = G⁻¹ and V = R W with the weights corrected so far. Taking
away the least, correcting all others and going on is optimal brain surgery on groups of columns (Hassibi & Stork 1993;
Kurtić et al. 2023, ZipLM).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Groups of one column are taken away together, this many at most, and this part of those that are left.
TOGETHER, TOGETHER_PART = 64, 1 / 16
#: Columns that are gone are dropped from the matrices when they are this part of them.
STALE = 1 / 8
#: Is added to all diagonals, so that channels that are always zero have an inverse.
TINY = 1e-20


@dataclass(frozen=True)
class Path:
    """From all groups to none.

    Attributes:
        order: numbers of the groups, those that go last first, int64 (groups,).
        errors: squared error when the first 0, 1, …, all groups stay, float64 (groups + 1,); falls to zero.
    """

    order: Tensor
    errors: Tensor


def eliminate(gram: Tensor, outputs: Tensor, size: int, damping: float = 1e-4) -> Path:
    """Take away groups until none is left.

    Args:
        gram: of the inputs, per row, float64 (groups · size, groups · size); overwritten, as it may be the largest
            matrix there is and nobody needs it any more.
        outputs: V = R W, (measures, groups · size).
        size: columns of a group.
        damping: part of its diagonal that is added to the Gram matrix.

    Raises:
        LinAlgError: it is too little for a factor.
    """
    groups = len(gram) // size if size else 0
    diagonal = gram.diagonal()
    diagonal.add_(damping * (diagonal + diagonal.mean()) + TINY)
    # The factor has the square root of the matrix's condition number: fp32 is enough from there on.
    # LAPACK stores columns: a symmetric matrix's transpose is factorized where it lies, without another copy.
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram.mT, out=gram.mT).float())
    values = outputs.float()
    left = torch.arange(groups, device=gram.device)
    alive = torch.ones(groups, dtype=torch.bool, device=gram.device)
    gone: list[Tensor] = []
    grown: list[Tensor] = []
    count = groups
    while count:
        scores = torch.where(alive, _scores(inverse, values, size), torch.inf)
        together = min(TOGETHER, max(1, int(count * TOGETHER_PART))) if size == 1 else 1
        least, chosen = scores.topk(together, largest=False)
        columns = (chosen[:, None] * size + torch.arange(size, device=gram.device)).flatten()
        rows, leaving = inverse.index_select(0, columns), values.index_select(1, columns)
        # (H_gg)⁻¹ itself: a few columns, so that products are quicker than as many triangular solves.
        block = torch.linalg.inv(rows.index_select(1, columns))
        step = block @ rows
        lost = ((leaving @ block) * leaving).sum()
        # Shared out by the scores, which are each one's alone.
        grown.append(lost * least / least.sum() if float(least.sum()) > 0 else torch.zeros_like(least))
        gone.append(left[chosen])
        values.addmm_(leaving, step, alpha=-1)
        inverse.addmm_(rows.T, step, alpha=-1)
        alive[chosen] = False
        count -= together
        if len(alive) - count >= STALE * len(alive):
            held = (torch.nonzero(alive)[:, :1] * size + torch.arange(size, device=gram.device)).flatten()
            values = values.index_select(1, held)
            inverse = inverse.index_select(0, held).index_select(1, held)
            left, alive = left[alive], torch.ones(count, dtype=torch.bool, device=gram.device)
    if not gone:
        return Path(left, gram.new_zeros(1))
    errors = torch.cat([gram.new_zeros(1), torch.cat(grown).double().clamp_min(0).cumsum(0)])
    return Path(torch.cat(gone).flip(0), errors.flip(0))


def worth(path: Path) -> Tensor:
    """What each group's going costs, float64 (groups,): one that goes later never costs less than one before it."""
    costs = path.errors[:-1] - path.errors[1:]  # of the group that goes when k + 1 are left, by k
    found = torch.empty_like(costs)
    found[path.order] = costs.flip(0).cummax(0).values.flip(0)
    return found


def _scores(inverse: Tensor, values: Tensor, size: int) -> Tensor:
    """tr(V_g (H_gg)⁻¹ V_gᵀ) of each group; nonsense for those that are gone."""
    if size == 1:
        return values.square().sum(0) / inverse.diagonal().clamp_min(torch.finfo(torch.float32).tiny)
    groups = len(inverse) // size
    blocks = inverse.view(groups, size, groups, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    by_group = values.view(len(values), groups, size).permute(1, 2, 0)
    solved: Tensor = torch.linalg.solve_ex(blocks, by_group)[0]
    return (solved * by_group).sum((1, 2))
