"""From scores to masks: one pure function per method.

Scores and masks have shape (R, C), one value per block; v is the method's threshold. Masks hold 0 and 1 in
the dtype of the scores. The gradient passes the binarization straight through: the gradient of the scores
is the gradient of the mask (Bengio et al., 1308.3432; Sanh et al., 2005.07683, eq. 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

#: A threshold mask keeps at least 1 of so many blocks of a layer (0.5 %).
BLOCKS_PER_SURVIVOR = 200
#: Hard-concrete distribution (Louizos et al., 1712.01312, section 4.1): temperature and stretch.
BETA = 2 / 3
STRETCH_LOW, STRETCH_HIGH = -0.1, 1.1
#: A gate is above 0 with probability σ(score − this): β ln(−γ/ζ), about −1.6 (eq. 12).
L0_SHIFT = BETA * math.log(-STRETCH_LOW / STRETCH_HIGH)


class _StraightThrough(torch.autograd.Function):
    """The mask as value, the identity towards the scores as gradient."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, kept: Tensor) -> Tensor:
        return kept.to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def straight_through(scores: Tensor, kept: Tensor) -> Tensor:
    """`kept` (bool) as a 0/1 mask in the dtype of `scores`, whose gradient becomes the gradient of `scores`."""
    return cast(Tensor, _StraightThrough.apply(scores, kept))


def kept_count(v: float, blocks: int) -> int:
    """How many of `blocks` blocks the fraction v keeps: round(v · blocks), at least one and at most all."""
    return min(blocks, max(1, round(v * blocks)))


def keep_largest(scores: Tensor, count: int) -> Tensor:
    """Bool, shaped like `scores`: True at exactly the `count` largest; of equal ones those of lowest index."""
    if count >= scores.numel():
        return torch.ones_like(scores, dtype=torch.bool)
    flat = scores.detach().flatten()
    cut = flat.topk(count, sorted=False).values.amin()
    above, ties = flat > cut, flat == cut
    # On tensors to the end, so that no step waits for the device to answer.
    places = count - above.sum()
    return (above | (ties & (ties.cumsum(0) <= places))).view(scores.shape)


def magnitude(block_means: Tensor, v: float) -> Tensor:
    """Keep the v fraction of blocks with the largest mean |W|; `block_means` (R, C). No gradient."""
    return keep_largest(block_means, kept_count(v, block_means.numel())).to(block_means.dtype)


def topk(scores: Tensor, v: float) -> Tensor:
    """Movement pruning: keep the v fraction of blocks with the highest scores (Sanh et al., section 4)."""
    return straight_through(scores, keep_largest(scores, kept_count(v, scores.numel())))


def topk_global(scores: Sequence[Tensor], v: float) -> list[Tensor]:
    """Movement pruning over all layers at once: the v fraction of all blocks with the highest scores.

    A layer may keep all of its blocks or none. Equal scores at the cut: earlier layers first.
    """
    kept = keep_largest_global(scores, v)
    return [straight_through(layer, mask) for layer, mask in zip(scores, kept, strict=True)]


def keep_largest_global(scores: Sequence[Tensor], v: float) -> list[Tensor]:
    """The bool masks, one per layer, of `topk_global`."""
    flat = torch.cat([layer.detach().flatten() for layer in scores])
    kept = keep_largest(flat, kept_count(v, flat.numel()))
    parts = kept.split([layer.numel() for layer in scores])
    return [part.view(layer.shape) for part, layer in zip(parts, scores, strict=True)]


def keep_within(scores: Sequence[Tensor], costs: Sequence[float], fraction: float) -> list[Tensor]:
    """The bool masks, one per layer, of the highest scores whose costs are at most a fraction of what all cost.

    What is next in the ranking and costs too much ends it, so that a higher threshold only adds. At least one stays.
    Equal scores: earlier layers first.

    Args:
        scores: of each layer, of any shapes.
        costs: of one unit of each layer.
        fraction: of Σ costs, from 0 to 1.
    """
    flat = torch.cat([layer.detach().flatten() for layer in scores])
    each = torch.cat(
        [flat.new_full((layer.numel(),), cost, dtype=torch.float64) for layer, cost in zip(scores, costs, strict=True)]
    )
    order = flat.argsort(descending=True, stable=True)
    spent = each[order].cumsum(0)
    # What adding up in another order rounds is no reason to leave the last one out.
    fits = spent <= fraction * spent[-1:] * (1 + 1e-9)
    fits[:1] = True
    kept = torch.zeros_like(flat, dtype=torch.bool)
    kept[order] = fits
    parts = kept.split([layer.numel() for layer in scores])
    return [part.view(layer.shape) for part, layer in zip(parts, scores, strict=True)]


def threshold(scores: Tensor, v: float) -> Tensor:
    """Keep blocks with score > v, but never fewer than 0.5 % of the layer's blocks, nor none."""
    return straight_through(scores, (scores > v) | _survivors(scores))


def sigmoid_threshold(scores: Tensor, v: float) -> Tensor:
    """Soft movement pruning: keep blocks with σ(score) > v, never fewer than 0.5 % nor none (Sanh et al., section 4).

    The gradient reaches the scores as it left the mask; σ only decides.
    """
    return straight_through(scores, (scores.sigmoid() > v) | _survivors(scores))


def _survivors(scores: Tensor) -> Tensor:
    # Joined with "> v", the highest scores add nothing unless fewer than these passed.
    return keep_largest(scores, -(-scores.numel() // BLOCKS_PER_SURVIVOR))


def hard_concrete(scores: Tensor, noise: Tensor | None) -> Tensor:
    """Hard-concrete gates (Louizos et al., eqs. 10-11 and 13), at least fp32.

    Args:
        scores: log α, (R, C).
        noise: uniform on (0, 1), (R, C): a sample, values in [0, 1], with its own gradient. None, for evaluation:
            0 or 1, kept where the deterministic gate is at least one half, which is where score ≥ 0; straight-through.
    """
    if noise is None:
        return straight_through(scores, scores >= 0)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    gate = torch.sigmoid((noise.logit() + scores) / BETA)
    return (gate * (STRETCH_HIGH - STRETCH_LOW) + STRETCH_LOW).clamp(0, 1)
