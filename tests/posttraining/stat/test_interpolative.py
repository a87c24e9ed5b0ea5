"""Pivots, R and T against SciPy's pivoted QR of the stacked activations, and sums over batches against one product."""

from __future__ import annotations

import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from splora.posttraining.core import gram as gram_module
from splora.posttraining.core.gram import Gram
from splora.posttraining.stat.interpolative import combine, expand, group_errors, group_gram, pivoted_cholesky, solve


def activations(rows: int, columns: int, seed: int = 0, decay: float = 3.0) -> Tensor:
    """Random rows whose singular values fall by `decay` orders of magnitude, float64."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(rows, min(rows, columns), generator=generator, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(columns, min(rows, columns), generator=generator, dtype=torch.float64))[0]
    return left * torch.logspace(0, -decay, min(rows, columns), dtype=torch.float64) @ right.T


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 150), st.integers(0, 60))
def test_pivots_r_and_t_are_those_of_the_pivoted_qr(seed: int, columns: int, more: int) -> None:
    matrix = activations(columns + more, columns, seed)
    scale = torch.rand(columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5
    found = pivoted_cholesky(matrix.T @ matrix, scale=scale)
    _, triangle, pivots = scipy.linalg.qr((matrix * scale).numpy(), pivoting=True, mode="economic")
    wanted = torch.from_numpy(triangle)
    wanted = wanted * wanted.diagonal().sign()[:, None]
    assert found.order.tolist() == pivots.tolist()
    assert found.rank == columns
    torch.testing.assert_close(found.factor, wanted, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.residuals, wanted.diagonal().abs(), rtol=1e-6, atol=1e-8)
    kept = columns // 2
    combination = combine(matrix.T @ matrix, found.order[:kept], found.order[kept:])
    # Least squares do not see the scaling, but for undoing it.
    unscaled = torch.linalg.solve_triangular(wanted[:kept, :kept], wanted[:kept, kept:], upper=True)
    unscaled = scale[found.order[:kept], None] * unscaled / scale[found.order[kept:]]
    torch.testing.assert_close(combination.weights, unscaled, rtol=1e-5, atol=1e-6)


def test_what_is_left_is_the_next_pivot_at_most_and_the_residual_obeys_the_bound() -> None:
    matrix = activations(200, 60, 4)
    found = pivoted_cholesky(matrix.T @ matrix)
    singular = torch.linalg.svdvals(matrix)
    for kept in (1, 10, 30, 59):
        front, back = matrix[:, found.order[:kept]], matrix[:, found.order[kept:]]
        weights = combine(matrix.T @ matrix, found.order[:kept], found.order[kept:]).weights
        rest = back - front @ weights
        assert float(rest.norm(dim=0).max()) <= float(found.residuals[kept]) * (1 + 1e-6)
        # Never below the best approximation of that rank; above it by the factor of pivoted QR at most.
        best = float(singular[kept])
        error = float(torch.linalg.matrix_norm(rest, 2))
        assert best * (1 - 1e-9) <= error <= best * (60 - kept) ** 0.5 * 2**kept


def test_columns_that_depend_on_others_come_last_and_are_combined_exactly() -> None:
    independent = activations(300, 7, 2, decay=0.5)
    mixing = torch.randn(7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    matrix = torch.cat([0.1 * independent @ mixing, independent], 1)
    gram = matrix.T @ matrix
    found = pivoted_cholesky(gram)
    assert found.rank == 7
    assert float(found.residuals[7:].abs().max()) == 0.0
    kept, removed = found.order[:7], found.order[7:]
    torch.testing.assert_close(matrix[:, kept] @ combine(gram, kept, removed).weights, matrix[:, removed])
    # Even where more are kept than are independent, by a factorization that reveals the rank.
    kept, removed = found.order[:10], found.order[10:]
    combination = combine(gram, kept, removed)
    assert combination.rank == 7
    torch.testing.assert_close(matrix[:, kept] @ combination.weights, matrix[:, removed], rtol=1e-6, atol=1e-8)


def test_nothing_to_combine_and_nothing_to_combine_from() -> None:
    gram = torch.eye(3, dtype=torch.float64)
    every, none = torch.arange(3), torch.arange(0)
    assert combine(gram, every, none).weights.shape == (3, 0)
    assert combine(gram, none, every).weights.shape == (0, 3)
    zero = pivoted_cholesky(torch.zeros(3, 3, dtype=torch.float64))
    assert zero.rank == 0
    assert sorted(zero.order.tolist()) == [0, 1, 2]
    assert pivoted_cholesky(torch.zeros(0, 0, dtype=torch.float64)).order.shape == (0,)
    assert not solve(torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)).weights.any()


def test_the_gram_matrix_of_heads_reads_each_heads_contexts_as_one_column() -> None:
    contexts = activations(50, 12, 3).view(50, 4, 3)
    columns = contexts.permute(0, 2, 1).reshape(150, 4)
    flat = contexts.reshape(50, 12)
    torch.testing.assert_close(group_gram(flat.T @ flat, 3), columns.T @ columns)
    assert expand(torch.tensor([2, 0]), 3).tolist() == [6, 7, 8, 0, 1, 2]


def test_errors_of_stopping_at_a_head_are_those_of_the_stacked_least_squares() -> None:
    contexts = activations(90, 12, 5)
    weight = torch.randn(7, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    order = torch.tensor([2, 0, 3, 1])
    found = group_errors(contexts.T @ contexts, order, 3, weight)
    for kept in range(5):
        front, back = expand(order[:kept], 3), expand(order[kept:], 3)
        solution = torch.linalg.pinv(contexts[:, front]) @ contexts[:, back]
        rest = contexts[:, back] - contexts[:, front] @ solution
        assert float(found[kept]) == pytest.approx(float((rest @ weight[:, back].T).norm()), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("gathered", [1, 30, 1000])
@pytest.mark.parametrize("looked_at", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_over_batches_are_those_of_all_rows(
    dtype: torch.dtype, looked_at: bool, gathered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gram_module, "GATHERED", gathered)
    generator = torch.Generator().manual_seed(0)
    rows, targets = (torch.randn(101, width, generator=generator, dtype=dtype) + 1 for width in (9, 4))
    gram = Gram(9, 4)
    for part in torch.arange(101).split(13):
        gram.add(rows[part], targets[part])
        assert not looked_at or torch.equal(gram.matrix, gram.matrix.T)
    rows, targets = rows.double(), targets.double()
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(gram.matrix, rows.T @ rows, **tolerance)
    torch.testing.assert_close(gram.cross, targets.T @ rows, **tolerance)
    torch.testing.assert_close(gram.sum, rows.sum(0), **tolerance)
    torch.testing.assert_close(gram.target_sum, targets.sum(0), **tolerance)
    torch.testing.assert_close(gram.target_square, targets.square().sum().view(1), **tolerance)
    products, cross = gram.centred()
    # Rounding is a part of the products that were there before the means were taken out.
    tolerance["atol"] = max(tolerance["atol"], float(gram.matrix.max()) * torch.finfo(dtype).eps)
    torch.testing.assert_close(products, (rows - rows.mean(0)).T @ (rows - rows.mean(0)), **tolerance)
    torch.testing.assert_close(cross, (targets - targets.mean(0)).T @ rows, **tolerance)
    assert gram.rows == 101


@given(weights=st.lists(st.sampled_from([0.05, 1.0, 2.0]), min_size=1, max_size=12))
def test_rows_of_several_weights_in_any_order_add_up(weights: list[float]) -> None:
    rows = torch.randn(len(weights), 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gram = Gram(4)
    for row, weight in zip(rows, weights, strict=True):
        gram.add(row[None], weight=weight)
    counted = torch.tensor(weights, dtype=torch.float64)[:, None]
    torch.testing.assert_close(gram.matrix, rows.T @ (rows * counted))
    torch.testing.assert_close(gram.sum, (rows * counted).sum(0))


def test_a_row_of_weight_two_counts_as_two_rows_and_halves_add_up() -> None:
    rows = torch.randn(6, 3, dtype=torch.float64)
    heavy, twice, other = Gram(3), Gram(3), Gram(3)
    heavy.add(rows, weight=2.0)
    twice.add(rows)
    other.add(rows)
    twice.absorb(other)
    torch.testing.assert_close(heavy.matrix, twice.matrix)
    torch.testing.assert_close(heavy.sum, twice.sum)
    assert heavy.rows == twice.rows == 12


@pytest.mark.parametrize("channels", [1, 5, 7, 12, 25])
def test_a_compact_gram_matrix_is_the_same_in_fp32_and_half_the_size(channels: int) -> None:
    gram = Gram(channels)
    gram.add(torch.randn(30, channels, generator=torch.Generator().manual_seed(channels)))
    before, held = gram.matrix.clone(), gram.bytes
    assert torch.equal(gram.compact().matrix, before.float().double())
    assert gram.bytes < 0.52 * held or channels < 12


def test_sums_for_combinations_of_targets_are_those_of_combined_targets() -> None:
    generator = torch.Generator().manual_seed(3)
    rows, targets, signs = (torch.randn(*shape, generator=generator) for shape in ((40, 6), (40, 5), (2, 5)))
    both, combined = Gram(6, 5), Gram(6, 2)
    both.add(rows, targets)
    combined.add(rows, targets @ signs.T)
    found = both.of_targets(signs.double())
    torch.testing.assert_close(found.centred(), combined.centred(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.target_sum, combined.target_sum, rtol=1e-4, atol=1e-4)
    assert both.cross.shape == (5, 6)


def test_combinations_times_a_weight_are_found_at_once() -> None:
    rows = torch.randn(60, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    weight = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    kept, removed = torch.tensor([0, 2, 3, 5, 6]), torch.tensor([1, 4, 7])
    found = combine(rows.T @ rows, kept, removed, weight=weight)
    torch.testing.assert_close(found.weights, combine(rows.T @ rows, kept, removed).weights @ weight.T)
