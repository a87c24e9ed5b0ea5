"""What `hybrid_filled` does once its schedule has ended: heads that still have weights are dense again.

Lagunas et al. (2109.04838, section 4.1): blocks decide which heads die; within those that live, zeros cost as much time
as weights do, so all of them train on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from splora import anatomy
from splora.masks import BlockMask, expand, masked_layers


@torch.no_grad()
def fill_heads(network: nn.Module) -> None:
    """Fix the masks of all attention weights: all of a head that lives, nothing of one that does not.

    A head lives if a block of its value rows and a block of its columns of the output projection do.

    Args:
        network: with block masks in its attention weights whose blocks lie within heads.
    """
    size = anatomy.head_size(anatomy.config_of(network))
    masked, by_layer = masked_layers(network), dict[int, dict[str, Any]]()
    for name, place in anatomy.encoder_linears(network).items():
        if place.in_attention and name in masked:  # a pruned model may have layers without heads
            by_layer.setdefault(place.layer, {})[place.role] = masked[name]
    roles = next(of for of in anatomy.family_of(anatomy.config_of(network)).matrices().values() if "value" in of)
    for layer in by_layer.values():
        lives = _rows(layer[roles[0]], size, roles.index("value"), len(roles))
        lives = lives & _cols(layer["attention_output"], size)
        for role, linear in layer.items():
            mask: BlockMask = linear.block_mask
            rows, cols = mask.block
            if role == "attention_output":
                mask.fix(lives.repeat_interleave(size // cols).expand(mask.grid))
            else:
                each = lives.repeat_interleave(size // rows)
                mask.fix(each.repeat(mask.grid[0] // len(each))[:, None].expand(mask.grid))


def _rows(linear: Any, size: int, number: int, parts: int) -> Tensor:
    """Heads with a kept block in these rows, those of one of so many parts, bool (heads,)."""
    kept: Tensor = expand(linear.binary_mask(), linear.block_mask.block)
    lives: Tensor = kept.any(1).unflatten(0, (parts, -1, size))[number].any(1)
    return lives


def _cols(linear: Any, size: int) -> Tensor:
    """Heads with a kept block in these columns, bool (heads,)."""
    kept: Tensor = expand(linear.binary_mask(), linear.block_mask.block)
    lives: Tensor = kept.any(0).unflatten(0, (-1, size)).any(1)
    return lives
