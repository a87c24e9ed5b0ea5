"""SPLoPA's mathematics on tensors (Hedegaard et al., arXiv 2211.10155, the low-rank PHM adapter).

Symbols: weight W0 (out, in), blocks of p × q on a grid (R, C) = (out/p, in/q), N = R·C blocks, K prototypes of rank
ρ: columns c (K, p, ρ), rows r (K, ρ, q), position weights P (N, K), mask M (R, C). The effective weight is
W = expand(M) ⊙ (W0 + ΔW), ΔW = Σ_k P_k ⊗ c_k r_k. Block (i, j) of ΔW is Σ_k P_k[i, j] c_k r_k: all blocks together
are one product of (N, K) by (K, p·q).

Where p or q do not divide the weight, R and C are rounded up, and what the last blocks have beyond the weight is left
out. The mask may have blocks of its own, which divide the weight: whole heads or neurons over an adapter of 32 × 32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from splora.adapters.autocast import compute_dtype, without_autocast
from splora.masks.grid import blockwise


def prototypes(columns: Tensor, rows: Tensor) -> Tensor:
    """The K prototypes c_k r_k, flat: (K, p, ρ) and (K, ρ, q) → (K, p·q)."""
    return torch.bmm(columns, rows).flatten(1)


def grid_of(shape: tuple[int, int] | torch.Size, p: int, q: int) -> tuple[int, int]:
    """The grid (R, C) of blocks p × q that cover a weight of `shape` (out, in)."""
    return -(-shape[0] // p), -(-shape[1] // q)


def delta_weight(
    columns: Tensor, rows: Tensor, position_weights: Tensor, shape: tuple[int, int] | torch.Size
) -> Tensor:
    """ΔW of `shape` (out, in) from c (K, p, ρ), r (K, ρ, q) and P (N, K)."""
    p, q = columns.shape[1], rows.shape[2]
    grid_rows, grid_cols = grid_of(shape, p, q)
    blocks = (position_weights @ prototypes(columns, rows)).view(grid_rows, grid_cols, p, q)
    covering = blocks.transpose(1, 2).reshape(grid_rows * p, grid_cols * q)
    return covering[: shape[0], : shape[1]]


def _aligned(weight: Tensor, columns: Tensor, rows: Tensor, mask: Tensor) -> bool:
    """Whether the mask has one value per block of ΔW, and these blocks divide the weight."""
    p, q = columns.shape[1], rows.shape[2]
    return (mask.shape[0] * p, mask.shape[1] * q) == tuple(weight.shape)


def effective_weight(
    weight: Tensor,
    columns: Tensor,
    rows: Tensor,
    position_weights: Tensor,
    mask: Tensor,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """W = expand(M) ⊙ (W0 + ΔW) of shape (out, in) in `dtype` (W0's own if None), without a gradient.

    Where the mask's blocks are ΔW's, it meets P before the product and W0 in the sum, so that neither an expanded mask
    nor ΔW in the weight's layout ever takes memory: beside the result there is one tensor of the weight's size.
    """
    dtype = dtype or weight.dtype
    if not _aligned(weight, columns, rows, mask):
        effective = adapted_weight(weight, columns, rows, position_weights, dtype)
        blockwise(effective, mask.shape).mul_(mask.to(dtype)[:, None, :, None])
        return effective
    p, q = columns.shape[1], rows.shape[2]
    grid_rows, grid_cols = mask.shape
    mask = mask.to(weight.dtype)
    with torch.no_grad():
        masked = (position_weights * mask.reshape(-1, 1).to(position_weights.dtype)).to(dtype)
        blocks = (masked @ prototypes(columns, rows).to(dtype)).view(grid_rows, grid_cols, p, q)
        effective = torch.empty_like(weight, dtype=dtype, requires_grad=False)
        torch.addcmul(
            blocks.transpose(1, 2),
            weight.view(grid_rows, p, grid_cols, q),
            mask.view(grid_rows, 1, grid_cols, 1),
            out=effective.view(grid_rows, p, grid_cols, q),
        )
    return effective


@torch.no_grad()
def adapted_weight(
    weight: Tensor, columns: Tensor, rows: Tensor, position_weights: Tensor, dtype: torch.dtype
) -> Tensor:
    """W0 + ΔW, (out, in), in `dtype`, in memory of its own."""
    delta = delta_weight(columns.to(dtype), rows.to(dtype), position_weights.to(dtype), weight.shape)
    return torch.add(delta, weight.to(dtype))


def splopa_linear(
    x: Tensor,
    weight: Tensor,
    columns: Tensor,
    rows: Tensor,
    position_weights: Tensor,
    mask: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """x Wᵀ + bias with the effective weight W: (…, in) → (…, out), with gradients to whatever asks for one.

    W is built again in the backward pass instead of being kept: N·K·p·q operations are little beside tokens·out·in.

    Args:
        x: (…, in), weight: (out, in), columns: (K, p, ρ), rows: (K, ρ, q), position_weights: (N, K),
        mask: (R, C), boolean or floating, bias: (out,) or None.
    """
    result: Tensor = _SPLoPALinear.apply(x, weight, columns, rows, position_weights, mask, bias)
    return result


class _SPLoPALinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        columns: Tensor,
        rows: Tensor,
        position_weights: Tensor,
        mask: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        dtype = compute_dtype(x, weight)
        ctx.x_dtype = x.dtype
        ctx.bias_dtype = None if bias is None else bias.dtype
        with without_autocast(x):
            x = x.to(dtype)
            effective = effective_weight(weight, columns, rows, position_weights, mask, dtype)
            ctx.save_for_backward(x, weight, columns, rows, position_weights, mask)
            return F.linear(x, effective, None if bias is None else bias.to(dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, columns, rows, position_weights, mask = ctx.saved_tensors
        need_x, need_weight, need_columns, need_rows, need_position, need_mask, need_bias = ctx.needs_input_grad
        grad_x = grad_weight = grad_columns = grad_rows = grad_position = grad_mask = grad_bias = None
        with without_autocast(grad_output):
            dtype = x.dtype
            grad = grad_output.to(dtype).reshape(-1, weight.shape[0])
            if need_bias:
                grad_bias = grad.sum(0, dtype=ctx.bias_dtype)
            if need_x:
                effective = effective_weight(weight, columns, rows, position_weights, mask, dtype)
                grad_x = (grad @ effective).view(x.shape).to(ctx.x_dtype)
                del effective
            if not (need_weight or need_columns or need_rows or need_position or need_mask):
                return grad_x, None, None, None, None, None, grad_bias

            p, q = columns.shape[1], rows.shape[2]
            grid_rows, grid_cols = grid_of(weight.shape, p, q)
            grid = grad.t() @ x.reshape(-1, weight.shape[1])
            if not _aligned(weight, columns, rows, mask):
                # The mask is dealt with in the weight's layout; what is left is a ΔW without one.
                if need_mask:
                    product = adapted_weight(weight, columns, rows, position_weights, dtype).mul_(grid)
                    grad_mask = blockwise(product, mask.shape).sum((1, 3), dtype=mask.dtype)
                    del product
                blockwise(grid, mask.shape).mul_(mask.to(dtype)[:, None, :, None])
                if need_weight:
                    grad_weight = grid.to(weight.dtype)
                grid = F.pad(grid, (0, grid_cols * q - weight.shape[1], 0, grid_rows * p - weight.shape[0]))
                found = _delta_gradients(
                    grid, columns, rows, position_weights, (need_columns, need_rows, need_position)
                )
                return grad_x, grad_weight, *found, grad_mask, grad_bias
            flat_mask = mask.reshape(-1, 1).to(position_weights.dtype)
            if need_weight:
                expanded = mask.to(weight.dtype).view(grid_rows, 1, grid_cols, 1)
                grad_weight = (grid.view(grid_rows, p, grid_cols, q) * expanded).view(weight.shape).to(weight.dtype)
            blocks = grid.view(grid_rows, p, grid_cols, q).transpose(1, 2).reshape(-1, p * q)
            del grid
            if need_position or need_mask:
                # ⟨block of G, prototype⟩: the gradient of an unmasked position weight, and ΔW's part of the mask's
                correlation = (blocks @ prototypes(columns, rows).to(dtype).t()).to(position_weights.dtype)
                if need_mask:
                    grad_mask = (correlation * position_weights).sum(1).view(grid_rows, grid_cols)
                if need_position:
                    grad_position = correlation.mul_(flat_mask)
            if need_columns or need_rows:
                masked = (position_weights * flat_mask).to(dtype)
                grad_prototypes = (masked.t() @ blocks).view(-1, p, q).to(columns.dtype)
                grad_columns = torch.bmm(grad_prototypes, rows.transpose(1, 2)) if need_columns else None
                grad_rows = torch.bmm(columns.transpose(1, 2), grad_prototypes) if need_rows else None
            if grad_mask is not None:
                # in place, last of all: the product takes no memory of its own
                product = blocks.view(grid_rows, grid_cols, p, q)
                product.mul_(weight.view(grid_rows, p, grid_cols, q).transpose(1, 2))
                grad_mask = (grad_mask + product.sum((2, 3), dtype=grad_mask.dtype)).to(mask.dtype)
        return grad_x, grad_weight, grad_columns, grad_rows, grad_position, grad_mask, grad_bias


def _delta_gradients(
    grid: Tensor, columns: Tensor, rows: Tensor, position_weights: Tensor, needed: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of c, r and P, those that are needed, from that of ΔW, (R·p, C·q)."""
    p, q = columns.shape[1], rows.shape[2]
    need_columns, need_rows, need_position = needed
    blocks = blockwise(grid, (grid.shape[0] // p, grid.shape[1] // q)).transpose(1, 2).reshape(-1, p * q)
    grad_columns = grad_rows = grad_position = None
    if need_position:
        grad_position = (blocks @ prototypes(columns, rows).to(blocks.dtype).t()).to(position_weights.dtype)
    if need_columns or need_rows:
        grad_prototypes = (position_weights.to(blocks.dtype).t() @ blocks).view(-1, p, q).to(columns.dtype)
        grad_columns = torch.bmm(grad_prototypes, rows.transpose(1, 2)) if need_columns else None
        grad_rows = torch.bmm(columns.transpose(1, 2), grad_prototypes) if need_rows else None
    return grad_columns, grad_rows, grad_position
