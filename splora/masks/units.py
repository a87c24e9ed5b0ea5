"""Masks of whole units: one value for a head or a neuron, in every linear that has a part of it.

A head is rows of query, key and value and columns of the output projection; a neuron is a row of `ffn_in` and a column
of `ffn_out`. Its mask M is applied once, to the columns of the output projection: with these at zero nothing of the
unit reaches the hidden states, whatever its rows hold. The gradient of M there, ``Σ ∂L/∂W' ⊙ W`` over the column, is
that of a gate on what the unit puts out (Michel et al., 1905.10650); a second mask on the rows would leave a removed
unit without any gradient, and nothing could bring it back. The other linears follow: what is counted, shown, saved and
cut is zero there, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splora.masks.block_mask import BlockMask
from splora.masks.grid import BlockShape


@dataclass(frozen=True)
class Placement:
    """The masks of a model's linears, by full name.

    Attributes:
        shapes: rows × cols of a mask's blocks.
        leaders: of a linear that follows, the linear whose mask decides.
        units: what the values of a deciding mask stand for.
    """

    shapes: dict[str, BlockShape]
    leaders: dict[str, str]
    units: dict[str, str]

    def make(
        self, name: str, weight: tuple[int, int], settings: dict[str, Any], made: dict[str, BlockMask]
    ) -> BlockMask:
        """The mask of one linear; deciding ones must be made before those that follow.

        Args:
            weight: (out, in).
            settings: of `BlockMask`.
            made: masks by the name of their linear.
        """
        if name in self.leaders:
            return FollowingMask(weight, self.shapes[name], made[self.leaders[name]], name)
        return BlockMask(weight, self.shapes[name], **settings, where=name, unit=self.units.get(name, "block"))

    def order(self) -> list[str]:
        """The linears, deciding ones first."""
        return sorted(self.shapes, key=lambda name: name in self.leaders)


class FollowingMask(BlockMask):
    """The mask of a linear whose units another linear's mask decides; it takes no part in training."""

    def __init__(self, weight_shape: tuple[int, int], block: BlockShape, leader: BlockMask, where: str = "") -> None:
        super().__init__(weight_shape, block, "magnitude", where=where, unit=leader.unit)
        # Not registered: a state dict shows the scores once, where they decide.
        self.__dict__["leader"] = leader
        self.index = leader.index

    def forward(self, block_means: Callable[[], Tensor] | None = None) -> Tensor:
        """Ones (R, C): the unit's mask is applied where it is decided."""
        return torch.ones(self.grid, device=self.threshold_value.device)

    @torch.no_grad()
    def binary(self, block_means: Callable[[], Tensor] | None = None) -> Tensor:
        """The leader's evaluation mask in this linear's grid, bool (R, C)."""
        leader: BlockMask = self.__dict__["leader"]
        units = leader.binary().flatten()
        # A fused weight has rows of several roles, one after another.
        return units.repeat(self.grid[0] * self.grid[1] // max(len(units), 1)).reshape(self.grid)
