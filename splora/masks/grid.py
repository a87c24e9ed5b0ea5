"""Block grids: a weight of shape (out, in) seen as R × C blocks of p × q values.

Every function is pure. A weight has shape (R·p, C·q), a mask one value per block, shape (R, C), and
"blocks" are the same values with one block per row, shape (R·C, p·q): block (i, j) is row i·C + j,
flattened row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from splora.errors import InputError
from splora.masks.blocks import misfits

BlockShape = tuple[int, int]

#: Values of a weight reduced at a time (4 MB in fp32): enough to keep a device busy, little beside a model.
PIECE = 1 << 20


def grid_shape(weight_shape: tuple[int, int], block: BlockShape, where: str = "") -> tuple[int, int]:
    """Number of blocks (R, C) of `block` (p, q) in a weight of `weight_shape` (out, in).

    Args:
        where: the layer's name, for the message.

    Raises:
        InputError: the blocks do not divide the weight; names the layer, both shapes and the nearest allowed sizes.
    """
    (out_size, in_size), (p, q) = weight_shape, block
    remedies = [
        f"block {side} may be {_nearest_divisors(size, own)}" for side, size, own in misfits(weight_shape, block)
    ]
    if remedies:
        raise InputError(
            f"{where or 'weight'}: blocks of {p} × {q} do not divide the weight of {out_size} × {in_size}; "
            + " and ".join(remedies)
            + "."
        )
    return out_size // p, in_size // q


def _nearest_divisors(size: int, found: int) -> str:
    divisors = [n for n in range(1, size + 1) if size % n == 0]
    below = [n for n in divisors if n < found][-1:]
    above = [n for n in divisors if n > found][:1]
    return " or ".join(str(n) for n in below + above)


def split(weight: Tensor, block: BlockShape) -> Tensor:
    """The same memory as (R, p, C, q), for any strides of `weight` (R·p, C·q)."""
    p, q = block
    return cast(Tensor, weight.unflatten(0, (-1, p)).unflatten(2, (-1, q)))


def blockwise(matrix: Tensor, grid: tuple[int, int] | torch.Size) -> Tensor:
    """A view (R, p, C, q) of a contiguous matrix (R·p, C·q), by its grid (R, C)."""
    return matrix.view(grid[0], matrix.shape[0] // grid[0], grid[1], matrix.shape[1] // grid[1])


def expand(mask: Tensor, block: BlockShape) -> Tensor:
    """`mask` (R, C) with each value repeated over its block: (R·p, C·q). Differentiable."""
    (rows, cols), (p, q) = mask.shape, block
    return mask[:, None, :, None].expand(rows, p, cols, q).reshape(rows * p, cols * q)


def to_blocks(weight: Tensor, block: BlockShape) -> Tensor:
    """`weight` (R·p, C·q) with one block per row: (R·C, p·q), a contiguous copy. Differentiable."""
    p, q = block
    return split(weight, block).transpose(1, 2).reshape(-1, p * q)


def from_blocks(blocks: Tensor, grid: tuple[int, int], block: BlockShape) -> Tensor:
    """The inverse of `to_blocks`: `blocks` (R·C, p·q) as a weight (R·p, C·q). Differentiable."""
    (rows, cols), (p, q) = grid, block
    return blocks.reshape(rows, cols, p, q).transpose(1, 2).reshape(rows * p, cols * q)


def touched_blocks(mask: Tensor, mask_block: BlockShape, block: BlockShape) -> Tensor:
    """Which blocks of another size hold something that a mask keeps, bool (⌈out/p⌉, ⌈in/q⌉).

    Args:
        mask: bool (R, C) over blocks of `mask_block`, which divide the weight.
        block: (p, q), whose last blocks may reach beyond the weight.
    """
    if mask_block == block:
        return mask
    kept = expand(mask, mask_block)
    (p, q), (rows, cols) = block, kept.shape
    padded = torch.nn.functional.pad(kept, (0, -cols % q, 0, -rows % p))
    return split(padded, block).any(3).any(1)


def block_mean_abs(weight: Tensor, block: BlockShape) -> Tensor:
    """Mean |W| of each block of `weight` (R·p, C·q): (R, C), at least fp32, whatever the weight's dtype. No gradient.

    In half precision neighbouring means would round to the same number, and ties decide what is pruned.
    """
    values = split(weight.detach(), block)
    dtype = torch.promote_types(weight.dtype, torch.float32)
    means = values.new_empty((values.shape[0], values.shape[2]), dtype=dtype)
    for rows, cols in _pieces(values):
        means[rows, cols] = values[rows, :, cols].abs().mean(dim=(1, 3), dtype=dtype)
    return means


def block_dot(left: Tensor, right: Tensor, block: BlockShape) -> Tensor:
    """Block sums of left ⊙ right, both (R·p, C·q): (R, C), at least fp32. No full-size product, no gradient."""
    a, b = split(left.detach(), block), split(right.detach(), block)
    dtype = torch.promote_types(torch.promote_types(left.dtype, right.dtype), torch.float32)
    sums = a.new_empty((a.shape[0], a.shape[2]), dtype=dtype)
    for rows, cols in _pieces(a):
        sums[rows, cols] = (a[rows, :, cols] * b[rows, :, cols]).sum(dim=(1, 3), dtype=dtype)
    return sums


def _pieces(values: Tensor) -> Iterator[tuple[slice, slice]]:
    """Ranges of block rows and block cols that cover `values` (R, p, C, q) in pieces of about `PIECE` values."""
    rows, p, cols, q = values.shape
    high = max(1, PIECE // (p * cols * q))
    wide = cols if high > 1 or p * cols * q <= PIECE else max(1, PIECE // (p * q))
    for i in range(0, rows, high):
        for j in range(0, cols, wide):
            yield slice(i, i + high), slice(j, j + wide)
