"""SPLoRA's mathematics on tensors (Hedegaard et al., arXiv 2211.10155; low rank after Hu et al., arXiv 2106.09685).

Symbols: weight W0 (out, in), B (out, r), A (r, in), mask M (R, C), one value per block of out/R × in/C. The effective
weight is W = expand(M) ⊙ (W0 + B A): blocks of (1, in) prune output channels with B's rows, blocks of (out, 1) input
channels with A's columns.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from splora.adapters.autocast import compute_dtype, without_autocast
from splora.masks.grid import blockwise


def effective_weight(weight: Tensor, b: Tensor, a: Tensor, mask: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """W = expand(M) ⊙ (W0 + B A) of shape (out, in) in `dtype` (W0's own if None), without a gradient."""
    with torch.no_grad():
        effective = adapted_weight(weight, b, a)
        blockwise(effective, mask.shape).mul_(mask.to(weight.dtype)[:, None, :, None])
        return effective.to(dtype or weight.dtype)


def adapted_weight(weight: Tensor, b: Tensor, a: Tensor) -> Tensor:
    """W0 + B A, (out, in), in the weight's type."""
    return torch.addmm(weight, b.to(weight.dtype), a.to(weight.dtype))


def splora_linear(x: Tensor, weight: Tensor, b: Tensor, a: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
    """x Wᵀ + bias with the effective weight W: (…, in) → (…, out), with gradients to whatever asks for one.

    W is built again in the backward pass instead of being kept: it costs r/tokens of the products with x.

    Args:
        x: (…, in), weight: (out, in), b: (out, r), a: (r, in), mask: (R, C), boolean or floating, bias: (out,) or None.
    """
    result: Tensor = _SPLoRALinear.apply(x, weight, b, a, mask, bias)
    return result


class _SPLoRALinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, b: Tensor, a: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
        dtype = compute_dtype(x, weight)
        ctx.x_dtype = x.dtype
        ctx.bias_dtype = None if bias is None else bias.dtype
        with without_autocast(x):
            x = x.to(dtype)
            ctx.save_for_backward(x, weight, b, a, mask)
            return F.linear(x, effective_weight(weight, b, a, mask, dtype), None if bias is None else bias.to(dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, b, a, mask = ctx.saved_tensors
        need_x, need_weight, need_b, need_a, need_mask, need_bias = ctx.needs_input_grad
        grad_x = grad_weight = grad_b = grad_a = grad_mask = grad_bias = None
        with without_autocast(grad_output):
            dtype = x.dtype
            grad = grad_output.to(dtype).reshape(-1, weight.shape[0])
            if need_bias:
                grad_bias = grad.sum(0, dtype=ctx.bias_dtype)
            if need_x:
                grad_x = (grad @ effective_weight(weight, b, a, mask, dtype)).view(x.shape).to(ctx.x_dtype)
            if not (need_weight or need_b or need_a or need_mask):
                return grad_x, None, None, None, None, grad_bias

            full = (grad.t() @ x.reshape(-1, weight.shape[1])).to(weight.dtype)
            if need_mask:
                product = blockwise(adapted_weight(weight, b, a).mul_(full), mask.shape)
                grad_mask = product.sum((1, 3)).to(mask.dtype)
                del product
            blockwise(full, mask.shape).mul_(mask.to(full.dtype)[:, None, :, None])
            if need_b:
                grad_b = (full @ a.to(full.dtype).t()).to(b.dtype)
            if need_a:
                grad_a = (b.to(full.dtype).t() @ full).to(a.dtype)
            if need_weight:
                grad_weight = full
        return grad_x, grad_weight, grad_b, grad_a, grad_mask, grad_bias
