"""Which weights have masks of blocks, and whether blocks fit there: decided here, for rows and for models. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

SIDES = ("rows", "cols")


def has_blocks(units: str, in_attention: bool) -> bool:
    """Whether masks over `units` lie over blocks of such weights, and not over whole heads or neurons."""
    return units == "blocks" or (in_attention and units != "heads_and_neurons")


def within_heads(units: str, fewer_heads: bool = False) -> bool:
    """Whether blocks must lie within heads: what stays of one is filled, or nobody knows how many stay.

    Args:
        fewer_heads: whether heads are cut before masks are laid.
    """
    return units == "hybrid_filled" or (units == "hybrid" and fewer_heads)


def leaves_rest(size: int, block: int) -> bool:
    """Whether blocks of so many rows (or columns) do not divide a weight of so many, or are none."""
    return block < 1 or size % block != 0


def misfits(shape: Sequence[int], block: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    """Each side of a weight (out, in) that its blocks (p, q) do not divide: `rows` or `cols`, its size, the block's."""
    for side, size, own in zip(SIDES, shape, block, strict=True):
        if leaves_rest(size, own):
            yield side, size, own
