"""Sums over calibration tokens that least squares and pivoted factorizations need, whatever the number of tokens.

With activations Z (rows: tokens) and what they should become, Y: ZᵀZ, YᵀZ, the sums of both over rows, and |Y|². Memory
is O(channels²); rows are never kept.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from splora.posttraining.core.precision import Precision
from splora.posttraining.core.products import column_blocks
from splora.scratch import Held, Keep, Slot

#: Blocks of columns that a Gram matrix is summed up in, at most, and the columns that a block has at least.
BLOCKS, BLOCK_COLUMNS = 6, 192
#: Rows that are gathered before they are multiplied: fewer make poor products, and each new shape costs a kernel.
GATHERED = 2048
FP32 = Precision("fp32")


class Gram:
    """Float64 sums of products of rows, added up over batches.

    Some `GATHERED` rows at a time are multiplied in their own type (fp32 where they have fewer bits) and added up in
    float64, so that rounding does not grow with the number of rows.

    Args:
        channels: columns of the activations.
        targets: columns of the targets; 0: there are none.
        precision: what products of fp32 rows compute in.

    Attributes:
        rows: rows that were added, each times its weight.
        rounding: relative error of an entry, as a part of the norms of its two columns.
    """

    def __init__(
        self, channels: int, targets: int = 0, device: torch.device | None = None, precision: Precision = FP32
    ) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self.channels = channels
        self._products, self._sum = zeros(channels, channels), zeros(channels)
        self._cross, self._target_sum, self._target_square = zeros(targets, channels), zeros(targets), zeros(1)
        self._whole = True  # also below the diagonal
        self._packed: list[Held | Slot] = []
        # By weight, rows that are not multiplied yet, and their targets.
        self._gathered: dict[float, tuple[list[Tensor], list[Tensor]]] = {}
        self._precision = precision
        self.rows, self.rounding = 0.0, torch.finfo(torch.float64).eps
        self._blocks = column_blocks(channels, BLOCKS, BLOCK_COLUMNS)

    def add(self, activations: Tensor, targets: Tensor | None = None, weight: float = 1.0) -> None:
        """Add rows: activations (tokens, channels), targets (tokens, targets), and what each row counts.

        Rows are held until they are multiplied: they must not be changed.
        """
        self.rows += weight * len(activations)
        rows, aims = self._gathered.setdefault(weight, ([], []))
        rows.append(activations)
        if targets is not None:
            aims.append(targets)
        if sum(map(len, rows)) >= GATHERED:
            self._multiply()

    def _multiply(self) -> None:
        """Add the products of the rows that were gathered."""
        while self._gathered:
            weight, (rows, aims) = self._gathered.popitem()
            activations = _stacked(rows)
            self.rounding = max(self.rounding, torch.finfo(activations.dtype).eps)
            self._whole = False
            self._sum.add_(activations.sum(0), alpha=weight)
            with self._precision.products(self._sum.device):
                # Symmetric: blocks above the diagonal only, 7/12 of the products.
                for block in self._blocks:
                    self._products[block, block.start :].add_(
                        activations[:, block].T @ activations[:, block.start :], alpha=weight
                    )
                if aims:
                    targets = _stacked(aims).to(activations.dtype)
                    self._cross.add_(targets.T @ activations, alpha=weight)
                    self._target_sum.add_(targets.sum(0), alpha=weight)
                    self._target_square.add_(targets.square().sum(), alpha=weight)

    @property
    def sum(self) -> Tensor:
        """Σ z, float64 (channels,); to be read only."""
        self._multiply()
        return self._sum

    @property
    def target_sum(self) -> Tensor:
        """Σ y, float64 (targets,); to be read only."""
        self._multiply()
        return self._target_sum

    @property
    def target_square(self) -> Tensor:
        """Σ |y|², float64 (1,); to be read only."""
        self._multiply()
        return self._target_square

    @property
    def cross(self) -> Tensor:
        """YᵀZ, float64 (targets, channels); to be read only."""
        self._multiply()
        return self._cross

    def of_targets(self, combinations: Tensor) -> Gram:
        """The sums that combinations of the targets, (new targets, targets), would have; products are shared.

        The targets' square, which all solutions have in common, stays as it is.
        """
        self._multiply()
        found = copy.copy(self)
        found._cross = combinations @ self._cross
        found._target_sum = combinations @ self._target_sum
        return found

    def absorb(self, other: Gram) -> None:
        """Add the sums over the rows of another one, whose products are then gone."""
        self._multiply()
        other._multiply()
        self.rows += other.rows
        self.rounding = max(self.rounding, other.rounding)
        self._whole = self._whole and other._whole
        for name in ("_products", "_sum", "_cross", "_target_sum", "_target_square"):
            getattr(self, name).add_(getattr(other, name))
        other._products = other._sum.new_empty(0, 0)

    def centred(self) -> tuple[Tensor, Tensor]:
        """Products of the deviations from the means: of activations (channels, channels), and with targets; new."""
        means = self.sum / max(self.rows, 1.0)
        # After `compact` the matrix is a new one: no second is made.
        subtract = torch.Tensor.addr_ if self._packed else torch.addr
        return (
            subtract(self.matrix, self.sum, means, alpha=-1),
            torch.addr(self.cross, self.target_sum, means, alpha=-1),
        )

    @property
    def matrix(self) -> Tensor:
        """ZᵀZ, float64 (channels, channels); to be read only. Made anew after `compact`."""
        self._multiply()
        if self._packed:
            whole = self._sum.new_empty(self.channels, self.channels)
            for block, kept in zip(self._blocks, self._packed, strict=True):
                rows = kept()
                whole[block, block.start :] = rows
                whole[block.stop :, block] = rows[:, block.stop - block.start :].T
            return whole
        if not self._whole:
            for block in self._blocks:
                _mirror(self._products[block, block])
                self._products[block.stop :, block] = self._products[block, block.stop :].T
            self._whole = True
        return self._products

    def compact(self, keep: Keep = Held, dtype: torch.dtype = torch.float32) -> Gram:
        """Keep the products in another type and none of them twice, a third of the memory, after the last row.

        Args:
            keep: where they are kept.
            dtype: fp32, or float64, which costs twice as much and loses nothing.
        """
        self._multiply()
        for block in self._blocks:
            rows = self._products[block, block.start :].to(dtype)
            _mirror(rows[:, : len(rows)])
            self._packed.append(keep(rows))
        self._products = self._sum.new_empty(0, 0)
        self.rounding = max(self.rounding, torch.finfo(dtype).eps)
        return self

    @property
    def tolerance(self) -> float:
        """Part of a column's square norm below which what is left of it after a projection is rounding."""
        self._multiply()
        if self.rounding > 1e-10:
            return 32 * self.rounding
        return max(self.channels, 1) * self.rounding

    @property
    def bytes(self) -> int:
        """Bytes held."""
        return self._products.nbytes + sum(rows.nbytes for rows in self._packed) + self._cross.nbytes


def _mirror(square: Tensor) -> None:
    """What is above the diagonal, put below it too; in place."""
    square.copy_(square.triu() + square.triu(1).T)


def _stacked(rows: list[Tensor]) -> Tensor:
    """One matrix of fp32 or float64 rows; the list is emptied, as there is no memory for both."""
    whole = rows[0] if len(rows) == 1 else torch.cat(rows)
    rows.clear()
    return whole if whole.dtype in (torch.float32, torch.float64) else whole.float()
