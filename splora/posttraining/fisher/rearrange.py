"""Rearrangement: which masks of a layer go together, their number being fixed (Kwon et al. 2022, section 3.3)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def rearrange(fisher: Tensor, kept: Tensor) -> Tensor:
    """Exchange pruned masks one by one for ones whose joint loss is smaller.

    The loss of pruning the set S is 1ᵀF1 over S, off-diagonal terms included. Starting from the least important masks,
    each further mask joins S, in ascending order of importance, and that member of S leaves whose leaving lowers the
    loss most. With s = F·1_S, the loss without j is 1ᵀs − 2 s_j + F_jj, so that a step costs O(masks).

    Args:
        fisher: Fisher information of the masks up to a factor, (masks, masks), symmetric.
        kept: bool (masks,); only the number of True values counts.

    Returns:
        bool (masks,), as many True values.
    """
    pruned = len(kept) - int(kept.sum())
    if pruned in (0, len(kept)):
        return kept.clone()
    matrix = fisher.double().cpu().numpy()
    diagonal = matrix.diagonal().copy()
    order = np.argsort(diagonal, kind="stable")
    member = np.zeros(len(kept), bool)
    member[order[:pruned]] = True
    sums = matrix[:, member].sum(1)
    # 2 s_j − F_jj is how much lower the loss is without j; masks outside S never leave it.
    relief = np.where(member, 2 * sums - diagonal, -np.inf)
    for joining in order[pruned:]:
        relief += 2 * matrix[joining]
        relief[joining] = 2 * (sums[joining] + diagonal[joining]) - diagonal[joining]
        sums += matrix[joining]
        leaving = int(relief.argmax())
        sums -= matrix[leaving]
        relief -= 2 * matrix[leaving]
        relief[leaving] = -np.inf
        member[joining], member[leaving] = True, False
    return torch.from_numpy(~member)


def joint_loss(fisher: Tensor, kept: Tensor) -> float:
    """1ᵀF1 over the masks that are not kept."""
    pruned = (~kept).to(fisher)
    return float(pruned @ fisher @ pruned)
