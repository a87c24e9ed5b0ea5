"""A linear layer whose weight is trained and masked: plain fine-pruning, W = expand(M) ⊙ W."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from splora.masks.block_mask import BlockMask
from splora.masks.grid import BlockShape, block_dot, block_mean_abs, split
from splora.masks.units import FollowingMask


class _MaskWeight(torch.autograd.Function):
    """expand(M) ⊙ W, keeping for backward what exists anyway: W itself and M of one value per block."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, block: BlockShape) -> Tensor:
        ctx.block = block
        for_weight, for_mask = ctx.needs_input_grad[:2]
        ctx.save_for_backward(mask if for_weight else None, weight if for_mask else None)
        return _multiply(weight, mask, block, _linear_dtype(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        mask, weight = ctx.saved_tensors
        grad = grads[0]
        for_weight = None
        if mask is not None:
            dtype = torch.promote_types(grad.dtype, mask.dtype)
            for_weight = _multiply(grad, mask, ctx.block, dtype)
        for_mask = None if weight is None else block_dot(grad, weight, ctx.block)
        return for_weight, for_mask, None


def mask_weight(weight: Tensor, mask: Tensor, block: BlockShape) -> Tensor:
    """expand(mask) ⊙ weight, with gradients to both.

    Args:
        weight: W, (R·p, C·q).
        mask: M, (R, C).
        block: rows and cols (p, q) of a block.

    Returns:
        (R·p, C·q) in the dtype of `weight`, or under autocast in autocast's, which spares the linear layer's cast.
    """
    return cast(Tensor, _MaskWeight.apply(weight, mask, block))


def _multiply(weight: Tensor, mask: Tensor, block: BlockShape, dtype: torch.dtype) -> Tensor:
    product = torch.empty(weight.shape, dtype=dtype, device=weight.device)
    torch.mul(split(weight, block), mask[:, None, :, None], out=split(product, block))
    return product


def _linear_dtype(weight: Tensor) -> torch.dtype:
    """The dtype in which F.linear will read `weight`; autocast leaves fp64 alone."""
    kind = weight.device.type
    if weight.dtype != torch.float64 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return weight.dtype


class MaskedLinear(nn.Module):
    """`base_layer` with its weight masked by `block_mask`; input (…, in), output (…, out).

    Reads like the nn.Linear it stands for: `weight` and `bias` are those of `base_layer`, without the mask.
    """

    def __init__(self, base_layer: nn.Linear, block_mask: BlockMask) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.block_mask = block_mask

    @property
    def weight(self) -> Tensor:
        """W before masking, (out, in)."""
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor | None:
        """(out), or None."""
        return self.base_layer.bias

    @property
    def in_features(self) -> int:
        return self.base_layer.in_features

    @property
    def out_features(self) -> int:
        return self.base_layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.block_mask, FollowingMask):
            return F.linear(x, self.weight, self.bias)
        mask = self.block_mask(self.block_means)
        return F.linear(x, mask_weight(self.weight, mask, self.block_mask.block), self.bias)

    def block_means(self) -> Tensor:
        """Mean |W| of each block, (R, C)."""
        return block_mean_abs(self.weight, self.block_mask.block)

    def effective_weight(self) -> Tensor:
        """expand(M) ⊙ W with the evaluation mask, (out, in)."""
        return mask_weight(self.weight, self.binary_mask().to(self.weight.dtype), self.block_mask.block)

    def binary_mask(self) -> Tensor:
        """The blocks that stay, bool (R, C)."""
        return self.block_mask.binary(self.block_means)
