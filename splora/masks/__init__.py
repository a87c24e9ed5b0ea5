"""M of `W = expand(M) ⊙ (W0 + ΔW)`: block grids, binarization, schedule and penalties."""

from splora.masks.attach import fold, mask_linears, masked_layers
from splora.masks.block_mask import INITS, METHODS, BlockMask, update_global_cutoffs
from splora.masks.grid import BlockShape, block_dot, block_mean_abs, expand, from_blocks, grid_shape, to_blocks
from splora.masks.masked_linear import MaskedLinear, mask_weight
from splora.masks.schedule import lambda_at, threshold_at
from splora.masks.units import FollowingMask, Placement

__all__ = [
    "INITS",
    "METHODS",
    "BlockMask",
    "BlockShape",
    "FollowingMask",
    "MaskedLinear",
    "Placement",
    "block_dot",
    "block_mean_abs",
    "expand",
    "fold",
    "from_blocks",
    "grid_shape",
    "lambda_at",
    "mask_linears",
    "mask_weight",
    "masked_layers",
    "threshold_at",
    "to_blocks",
    "update_global_cutoffs",
]
