"""M of `W = expand(M) ⊙ (W0 + ΔW)`: block grids, criteria, binarization, schedule and penalties.

`criteria` says what each way to prune is, for the workbook's checks, too; what makes masks brings torch along, and is
loaded when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from splora.masks.criteria import INITS, methods

if TYPE_CHECKING:
    from splora.masks.attach import fold, mask_linears, masked_layers
    from splora.masks.block_mask import BlockMask, update_global_cutoffs
    from splora.masks.grid import BlockShape, block_dot, block_mean_abs, expand, from_blocks, grid_shape, to_blocks
    from splora.masks.masked_linear import MaskedLinear, mask_weight
    from splora.masks.schedule import lambda_at, threshold_at
    from splora.masks.units import FollowingMask, Placement

METHODS = methods()
_PLACES = {
    **dict.fromkeys(("fold", "mask_linears", "masked_layers"), "attach"),
    **dict.fromkeys(("BlockMask", "update_global_cutoffs"), "block_mask"),
    **dict.fromkeys(("BlockShape", "block_dot", "block_mean_abs", "expand", "from_blocks"), "grid"),
    **dict.fromkeys(("grid_shape", "to_blocks"), "grid"),
    **dict.fromkeys(("MaskedLinear", "mask_weight"), "masked_linear"),
    **dict.fromkeys(("lambda_at", "threshold_at"), "schedule"),
    **dict.fromkeys(("FollowingMask", "Placement"), "units"),
}
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


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
