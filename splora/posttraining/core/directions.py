"""Random directions of predictions whose outer products are, on average, their Fisher information."""

from __future__ import annotations

import torch
from torch import Tensor


def direction(logits: Tensor, generator: torch.Generator, *, many: bool) -> Tensor:
    """L u of each prediction: of logits with probabilities p the information is diag(p) − ppᵀ = LLᵀ.

    L = diag(√p) − p√pᵀ, and u are random signs, so that E[Lu(Lu)ᵀ] = LLᵀ without drawing a label. Of two labels one
    vector is all of it, √(p₀p₁)·(1, −1), and nothing is random; of a score of unit variance the information is one.

    Args:
        logits: without gradients, (…, classes).
        generator: of the signs, on the CPU.
        many: whether several predictions are of one sample: then those of two labels have a sign each, so that no
            products of neighbours are left.

    Returns:
        float32 (…, classes).
    """
    if logits.shape[-1] == 1:
        return torch.ones_like(logits, dtype=torch.float32)
    p = logits.float().softmax(-1)
    if logits.shape[-1] == 2:
        size = p.prod(-1, keepdim=True).sqrt()
        pair = torch.cat([size, -size], -1)
        return pair * _signs(logits.shape[:-1], generator, p)[..., None] if many else pair
    signed = p.sqrt() * _signs(logits.shape, generator, p)
    return signed - p * signed.sum(-1, keepdim=True)


def _signs(shape: torch.Size, generator: torch.Generator, like: Tensor) -> Tensor:
    return torch.randint(0, 2, shape, generator=generator).to(like) * 2 - 1
