"""Sums over calibration tokens that least squares and pivoted factorizations need, whatever the number of tokens.

With activations Z (rows: tokens) and what they should become, Y: ZᵀZ, YᵀZ, the sums of both over rows, and |Y|². Memory
is O(channels²); rows are never kept.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

#: Blocks of columns that a Gram matrix is summed up in.
BLOCKS = 6


class Gram:
    """Float64 sums of products of rows, added up over batches.

    Products of one batch are computed in the rows' own type (fp32 where they have fewer bits) and added up in float64,
    so that rounding does not grow with the number of batches.

    Args:
        channels: columns of the activations.
        targets: columns of the targets; 0: there are none.

    Attributes:
        rows: rows that were added, each times its weight.
        precision: relative error of an entry, as a part of the norms of its two columns.
    """

    def __init__(self, channels: int, targets: int = 0, device: torch.device | None = None) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self.channels = channels
        self._products, self.sum = zeros(channels, channels), zeros(channels)
        self.cross, self.target_sum, self.target_square = zeros(targets, channels), zeros(targets), zeros(1)
        self._whole = True  # also below the diagonal
        self._packed: list[Tensor] = []
        self.rows, self.precision = 0.0, torch.finfo(torch.float64).eps
        width = -(-max(channels, 1) // BLOCKS)
        self._blocks = [slice(start, min(start + width, channels)) for start in range(0, channels, width)]

    def add(self, activations: Tensor, targets: Tensor | None = None, weight: float = 1.0) -> None:
        """Add rows: activations (tokens, channels), targets (tokens, targets), and what each row counts."""
        if activations.dtype not in (torch.float32, torch.float64):
            activations = activations.float()
        self.precision = max(self.precision, torch.finfo(activations.dtype).eps)
        self._whole = False
        # Symmetric: blocks above the diagonal only, 7/12 of the products.
        for block in self._blocks:
            self._products[block, block.start :].add_(
                activations[:, block].T @ activations[:, block.start :], alpha=weight
            )
        self.sum.add_(activations.sum(0, dtype=torch.float64), alpha=weight)
        self.rows += weight * len(activations)
        if targets is not None:
            targets = targets.to(activations.dtype)
            self.cross.add_(targets.T @ activations, alpha=weight)
            self.target_sum.add_(targets.sum(0, dtype=torch.float64), alpha=weight)
            self.target_square.add_(targets.square().sum(dtype=torch.float64), alpha=weight)

    def of_targets(self, combinations: Tensor) -> Gram:
        """The sums that combinations of the targets, (new targets, targets), would have; products are shared.

        The targets' square, which all solutions have in common, stays as it is.
        """
        found = copy.copy(self)
        found.cross = combinations @ self.cross
        found.target_sum = combinations @ self.target_sum
        return found

    def absorb(self, other: Gram) -> None:
        """Add the sums over the rows of another one, whose products are then gone."""
        self.rows += other.rows
        self.precision = max(self.precision, other.precision)
        self._whole = self._whole and other._whole
        for name in ("_products", "sum", "cross", "target_sum", "target_square"):
            getattr(self, name).add_(getattr(other, name))
        other._products = other.sum.new_empty(0, 0)

    def centred(self) -> tuple[Tensor, Tensor]:
        """Products of the deviations from the means: of activations (channels, channels), and with targets; new."""
        means = self.sum / max(self.rows, 1.0)
        return (
            torch.addr(self.matrix, self.sum, means, alpha=-1),
            torch.addr(self.cross, self.target_sum, means, alpha=-1),
        )

    @property
    def matrix(self) -> Tensor:
        """ZᵀZ, float64 (channels, channels); to be read only. Made anew after `compact`."""
        if self._packed:
            whole = self.sum.new_empty(self.channels, self.channels)
            for block, rows in zip(self._blocks, self._packed, strict=True):
                whole[block, block.start :] = rows
                whole[block.stop :, block] = rows[:, block.stop - block.start :].T
            return whole
        if not self._whole:
            for block in self._blocks:
                corner = self._products[block, block]
                corner.copy_(corner.triu() + corner.triu(1).T)
                self._products[block.stop :, block] = self._products[block, block.stop :].T
            self._whole = True
        return self._products

    def compact(self) -> Gram:
        """Keep the products in fp32 and none of them twice, a third of the memory, when the last row was added."""
        matrix = self.matrix
        self._packed = [matrix[block, block.start :].float() for block in self._blocks]
        self._products = self.sum.new_empty(0, 0)
        self.precision = max(self.precision, torch.finfo(torch.float32).eps)
        return self

    @property
    def tolerance(self) -> float:
        """Part of a column's square norm below which what is left of it after a projection is rounding."""
        if self.precision > 1e-10:
            return 32 * self.precision
        return max(self.channels, 1) * self.precision

    @property
    def bytes(self) -> int:
        """Bytes held."""
        return self._products.nbytes + sum(rows.nbytes for rows in self._packed) + self.cross.nbytes
