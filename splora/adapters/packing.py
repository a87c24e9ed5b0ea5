"""What of a mask and of a masked parameter goes into a file: bits, and the rows that are kept."""

from __future__ import annotations

import torch
from torch import Tensor

from splora.errors import InputError


def pack_mask(mask: Tensor) -> Tensor:
    """A binary mask as bits: (R, C) bool → (⌈R·C/8⌉,) uint8, row by row, first block in the highest bit."""
    import numpy

    bits = numpy.packbits(mask.detach().cpu().numpy().astype(bool).reshape(-1))
    return torch.from_numpy(bits).clone()


def unpack_mask(packed: Tensor, grid: tuple[int, int], where: str = "") -> Tensor:
    """The inverse of `pack_mask`: (⌈R·C/8⌉,) uint8 → (R, C) bool, where `grid` = (R, C).

    Raises:
        InputError: the bits do not fit the grid; `where` names the layer.
    """
    import numpy

    blocks = grid[0] * grid[1]
    if packed.dtype != torch.uint8 or tuple(packed.shape) != ((blocks + 7) // 8,):
        raise InputError(
            f"{where or 'mask'}: the saved mask has shape {tuple(packed.shape)} and type {packed.dtype}, but a grid of "
            f"{grid[0]} × {grid[1]} blocks takes {(blocks + 7) // 8} bytes; the adapter was saved for another block "
            f"shape or another model."
        )
    bits = numpy.unpackbits(packed.cpu().numpy(), count=blocks)
    return torch.from_numpy(bits).reshape(grid).bool()


def keep_rows(dense: Tensor, kept: Tensor) -> Tensor:
    """The rows of `dense` (n, m) whose entry of `kept` (n,) bool is true, as a tensor of its own: (kept, m)."""
    return dense.detach()[kept.to(dense.device)].clone()


def restore_rows(rows: Tensor, kept: Tensor, where: str = "") -> Tensor:
    """The inverse of `keep_rows`, zero where nothing was kept: (kept, m) → (n, m).

    Raises:
        InputError: there are more or fewer rows than `kept` asks for; `where` names the tensor.
    """
    count = int(kept.sum())
    if rows.dim() != 2 or rows.shape[0] != count:
        raise InputError(
            f"{where or 'tensor'}: the saved tensor has shape {tuple(rows.shape)}, but its mask keeps {count} rows; "
            f"the adapter file is damaged or was saved for another model."
        )
    dense = rows.new_zeros((kept.numel(), rows.shape[1]))
    dense[kept.to(rows.device)] = rows
    return dense
