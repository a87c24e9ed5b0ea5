"""Scores that start from knowledge: the ranks of importances, spread evenly, so that every method can read them.

Only the order of an importance is known to mean something: ranks have the same spread for magnitudes and for Fisher
information, and `mask_scale` says how far training must move a score to change its mind.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from splora.masks.block_mask import BlockMask


@torch.no_grad()
def start_scores(masks: Sequence[BlockMask], importances: Sequence[Tensor]) -> None:
    """Give masks the scores that their blocks' or units' importances make.

    Scores lie evenly where the criterion's `first_scores` puts them, mostly between ∓mask_scale. Methods with
    one threshold for the whole encoder rank rivals over all layers (by worth per MAC, where they compete for MACs),
    others rank each layer by itself.

    Args:
        masks: of which those with scores are started.
        importances: of each mask's blocks or units, as many as it has, on any scale that layers share.
    """
    pairs = [(mask, values) for mask, values in zip(masks, importances, strict=True) if mask.scores is not None]
    groups: dict[object, list[tuple[BlockMask, Tensor]]] = {}
    for number, (mask, values) in enumerate(pairs):
        # Of two units of one worth, the cheaper one stays longer.
        worth = values if mask.cost is None or mask.mask_init == "magnitude" else values / mask.cost
        groups.setdefault(mask.rivals if mask.criterion.is_global else number, []).append((mask, worth))
    for group in groups.values():
        ranks = spread(torch.cat([values.flatten() for _, values in group]))
        for (mask, _), own in zip(group, ranks.split([values.numel() for _, values in group]), strict=True):
            assert mask.scores is not None
            mask.scores.copy_(mask.criterion.first_scores(own.view(mask.grid), mask.mask_scale))


def spread(importance: Tensor) -> Tensor:
    """Ranks of (n,) values, evenly from −1 (the least) to 1, fp32; of equal ones the first counts as more."""
    count = importance.numel()
    order = importance.double().flip(0).argsort(stable=True)
    ranks = torch.empty(count, device=importance.device)
    ranks[count - 1 - order] = torch.linspace(-1, 1, count, device=importance.device) if count > 1 else 0.0
    return ranks
