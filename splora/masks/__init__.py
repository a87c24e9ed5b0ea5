"""M of `W = expand(M) ⊙ (W0 + ΔW)`: block grids, binarization, schedule and penalties."""

from splora.masks.block_mask import INITS, METHODS, BlockMask, update_global_cutoffs
from splora.masks.grid import BlockShape, block_dot, block_mean_abs, expand, from_blocks, grid_shape, to_blocks

__all__ = [
    "INITS",
    "METHODS",
    "BlockMask",
    "BlockShape",
    "block_dot",
    "block_mean_abs",
    "expand",
    "from_blocks",
    "grid_shape",
    "to_blocks",
    "update_global_cutoffs",
]
