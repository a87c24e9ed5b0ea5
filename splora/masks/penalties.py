"""Penalties on the scores: how much of the model the masks are expected to keep."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from splora.masks.binarize import L0_SHIFT


def l1(scores: Iterable[Tensor]) -> Tensor:
    """Mean over layers of mean σ(score), a scalar: soft movement's penalty (Sanh et al., 2005.07683, section 4).

    Args:
        scores: one tensor (R, C) per layer; each layer counts the same, whatever its number of blocks.
    """
    return torch.stack([layer.sigmoid().mean() for layer in scores]).mean()


def l0(scores: Iterable[Tensor]) -> Tensor:
    """Mean over layers of the mean probability that a hard-concrete gate is not 0, a scalar (Louizos et al., eq. 12).

    Args:
        scores: log α, one tensor (R, C) per layer; each layer counts the same, whatever its number of blocks.
    """
    return torch.stack([(layer - L0_SHIFT).sigmoid().mean() for layer in scores]).mean()


def penalty(name: str, scores: Iterable[Tensor]) -> Tensor:
    """The penalty of a name in `criteria.PENALTIES`, a scalar."""
    return {"l0": l0, "l1": l1}[name](scores)
