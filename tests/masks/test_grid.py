"""Block grids against index arithmetic written out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splora.errors import InputError
from splora.masks import grid

SIZES = st.integers(1, 5)


@settings(deadline=None, max_examples=40)
@given(rows=SIZES, cols=SIZES, p=SIZES, q=SIZES, transposed=st.booleans())
def test_every_value_is_where_its_block_and_place_say(rows: int, cols: int, p: int, q: int, transposed: bool) -> None:
    weight = torch.randn(cols * q, rows * p).T if transposed else torch.randn(rows * p, cols * q)
    mask = torch.randn(rows, cols)
    blocks, expanded = grid.to_blocks(weight, (p, q)), grid.expand(mask, (p, q))
    assert grid.grid_shape((rows * p, cols * q), (p, q)) == (rows, cols)
    assert blocks.shape == (rows * cols, p * q)
    for y in range(rows * p):
        for x in range(cols * q):
            i, j = y // p, x // q
            assert blocks[i * cols + j, (y % p) * q + x % q] == weight[y, x]
            assert expanded[y, x] == mask[i, j]
    assert torch.equal(grid.from_blocks(blocks, (rows, cols), (p, q)), weight)


@settings(deadline=None, max_examples=40)
@given(rows=SIZES, cols=SIZES, p=SIZES, q=SIZES, piece=st.sampled_from([1, 7, 30, grid.PIECE]))
def test_reductions_over_blocks_are_the_naive_ones_in_pieces_of_any_size(
    rows: int, cols: int, p: int, q: int, piece: int
) -> None:
    left, right = torch.randn(rows * p, cols * q), torch.randn(rows * p, cols * q)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "PIECE", piece)
        means, dots = grid.block_mean_abs(left, (p, q)), grid.block_dot(left, right, (p, q))
    for i in range(rows):
        for j in range(cols):
            a, b = (w[i * p : (i + 1) * p, j * q : (j + 1) * q] for w in (left, right))
            torch.testing.assert_close(means[i, j], a.abs().mean())
            torch.testing.assert_close(dots[i, j], (a * b).sum())


def test_expand_and_blocks_pass_gradients() -> None:
    mask = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: grid.expand(m, (2, 3)), (mask,))
    assert torch.autograd.gradcheck(lambda w: grid.from_blocks(grid.to_blocks(w, (2, 3)), (2, 3), (2, 3)), (weight,))


def test_half_precision_means_are_summed_in_fp32() -> None:
    weight = torch.full((64, 64), 1.0)
    weight[0, 0] = 1.5  # a difference of 1.2e-4 in the mean, below bf16's resolution
    means = grid.block_mean_abs(weight.bfloat16(), (64, 64))
    assert means.dtype == torch.float32
    assert means.item() == pytest.approx(1 + 0.5 / 4096, rel=1e-6)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ((50, 32), ["48 or 64", "block rows"]),
        ((32, 50), ["48 or 64", "block cols"]),
        ((1000, 32), ["block rows may be 768"]),
        ((0, 32), ["block rows may be 1"]),
        ((5, 7), ["block rows may be 4 or 6", "block cols may be 6 or 8"]),
    ],
)
def test_blocks_that_do_not_divide_are_refused_with_the_nearest_sizes(block: tuple[int, int], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        grid.grid_shape((768, 3072), block, where="encoder.layer.0.intermediate.dense")
    (sentence,) = caught.value.problems
    expected = ["encoder.layer.0.intermediate.dense", "768 × 3072", f"{block[0]} × {block[1]}", *words]
    assert all(word in sentence for word in expected), sentence


def test_only_the_wrong_dimension_is_blamed() -> None:
    with pytest.raises(InputError, match="rows") as caught:
        grid.grid_shape((768, 768), (50, 32))
    assert "block cols" not in str(caught.value)


@settings(deadline=None, max_examples=40)
@given(rows=SIZES, cols=SIZES, p=SIZES, q=SIZES, block=st.tuples(SIZES, SIZES), seed=st.integers(0, 99))
def test_blocks_that_a_mask_of_another_grid_touches(
    rows: int, cols: int, p: int, q: int, block: tuple[int, int], seed: int
) -> None:
    mask = torch.rand(rows, cols, generator=torch.Generator().manual_seed(seed)) < 0.3
    touched = grid.touched_blocks(mask, (p, q), block)
    assert touched.shape == (-(-rows * p // block[0]), -(-cols * q // block[1]))
    wanted = {(y // block[0], x // block[1]) for y in range(rows * p) for x in range(cols * q) if mask[y // p, x // q]}
    assert {tuple(place) for place in touched.nonzero().tolist()} == wanted
