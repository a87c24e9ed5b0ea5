"""Σ x xᵀ over rows x of a matrix, of which only what is on and above the diagonal is multiplied."""

from __future__ import annotations

import torch
from torch import Tensor

#: Blocks of columns that products are summed up in.
BLOCKS = 4


def column_blocks(channels: int, count: int, least: int = 1) -> list[slice]:
    """So many blocks of columns, or fewer, so that each has at least `least`."""
    width = max(-(-channels // count), least)
    return [slice(start, min(start + width, channels)) for start in range(0, channels, width)]


class Products:
    """The sum, added up over batches in float32: 5/8 of all products.

    Args:
        channels: columns of the rows that come.
    """

    def __init__(self, channels: int, device: torch.device | None = None) -> None:
        self._sum = torch.zeros(channels, channels, device=device)
        self._blocks = column_blocks(channels, BLOCKS)

    def add(self, rows: Tensor) -> None:
        """Add rows, float32 (rows, channels)."""
        for block in self._blocks:
            self._sum[block, block.start :].addmm_(rows[:, block].T, rows[:, block.start :])

    def matrix(self) -> Tensor:
        """The whole sum, float32 (channels, channels); new."""
        upper = self._sum.triu()
        return upper + upper.triu(1).T
