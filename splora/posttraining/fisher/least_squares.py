"""Scaling factors by least squares, from Gram matrices (Kwon et al. 2022, section 3.4).

A layer's output is Σ_j s_j a_j, a_j being what mask j lets through. With activations z (columns) and output weights W,
column j of the stacked system is z_j ⊗ w_j, so that AᵀA = (ZᵀZ) ⊙ (WᵀW) and Aᵀb comes from (bᵀZ) ⊙ W: nothing of the
size tokens × hidden × masks is ever built, and batches add up.
"""

from __future__ import annotations

import torch
from torch import Tensor

from splora.posttraining.core.products import Products


class NormalEquations:
    """AᵀA and Aᵀb of one layer's scaling problem, added up over batches.

    Args:
        weight: output weights, (hidden, masks · size).
        size: channels that one mask scales: the head size, or 1 for neurons.
        with_bias: let a bias take up what is the same for all rows: the system is that of centred rows.
    """

    def __init__(self, weight: Tensor, size: int, with_bias: bool = False) -> None:
        channels = weight.shape[1]
        self.weight, self.size = weight.detach(), size
        self._products = Products(channels, weight.device)
        self._cross = torch.zeros(weight.shape[0], channels, device=weight.device)
        self._sum = torch.zeros(channels, dtype=torch.float64, device=weight.device)
        self._target_sum = torch.zeros(weight.shape[0], dtype=torch.float64, device=weight.device)
        self.with_bias = with_bias
        self.rows = 0

    def add(self, activations: Tensor, target: Tensor) -> None:
        """Add rows: activations (tokens, masks · size) and what the layer should put out for them, (tokens, hidden)."""
        activations = activations.float()
        self._products.add(activations)
        self._cross.addmm_(target.float().T, activations)
        self._sum += activations.sum(0)
        self._target_sum += target.sum(0)
        self.rows += len(activations)

    def system(self) -> tuple[Tensor, Tensor]:
        """AᵀA, float64 (masks, masks), and Aᵀb, float64 (masks,)."""
        weight = self.weight.double()
        gram, cross = self._products.matrix().double(), self._cross.double()
        if self.with_bias and self.rows:
            gram -= torch.outer(self._sum, self._sum) / self.rows
            cross -= torch.outer(self._target_sum, self._sum) / self.rows
        normal, right = gram * (weight.T @ weight), (cross * weight).sum(0)
        masks = len(right) // self.size if self.size else 0
        blocks = normal.view(masks, self.size, masks, self.size).sum((1, 3))
        return blocks, right.view(masks, self.size).sum(1)

    def bias(self, factors: Tensor) -> Tensor:
        """What is left on average once the factors, float64 (masks,), are in: float64 (hidden,)."""
        scaled = self._sum * factors.repeat_interleave(self.size)
        return (self._target_sum - self.weight.double() @ scaled) / max(self.rows, 1)


def scales(normal: Tensor, right: Tensor, damping: float = 1.0) -> Tensor:
    """Factors near one: 1 + argmin_d ‖A(1 + d) − b‖² + damping² ‖d‖².

    Args:
        normal: AᵀA, float64 (masks, masks).
        right: Aᵀb, float64 (masks,).
        damping: LSMR's `damp` on the stacked system.

    Returns:
        float64 (masks,).
    """
    if not len(right):
        return right.clone()
    residual = right - normal.sum(1)
    damped = normal + damping**2 * torch.eye(len(right), dtype=normal.dtype, device=normal.device)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if int(failed):
        # Rounding made it indefinite: the least-norm solution of what can be told apart.
        solution: Tensor = torch.linalg.lstsq(damped, residual, driver="gelsd").solution
        return 1 + solution
    return 1 + torch.cholesky_solve(residual[:, None], factor)[:, 0]
