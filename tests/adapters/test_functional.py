"""The hand-written functions against the formulas written out naively."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from splora.adapters.splopa import functional as splopa
from splora.adapters.splora import functional as splora
from splora.masks.grid import expand

SIZES = st.integers(1, 4)


def naive_delta(columns: Tensor, rows: Tensor, position_weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """Σ_k P_k ⊗ c_k r_k, one Kronecker product after another."""
    per_prototype = position_weights.t().reshape(-1, *grid)
    return sum(
        (torch.kron(p, c @ r) for p, c, r in zip(per_prototype, columns, rows, strict=True)), start=torch.tensor(0.0)
    )


def splopa_case(
    grid: tuple[int, int], block: tuple[int, int], k: int, rank: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    """x, W0, c, r, P, M, bias; all of them ask for gradients."""
    (rows, cols), (p, q) = grid, block
    shapes = ((2, 3, cols * q), (rows * p, cols * q), (k, p, rank), (k, rank, q), (rows * cols, k), grid, (rows * p,))
    return tuple(torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes)


def splora_case(
    grid: tuple[int, int], block: tuple[int, int], rank: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    """x, W0, B, A, M, bias; all of them ask for gradients."""
    (rows, cols), (p, q) = grid, block
    shapes = ((2, 3, cols * q), (rows * p, cols * q), (rows * p, rank), (rank, cols * q), grid, (rows * p,))
    return tuple(torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes)


def assert_same_gradients(ours: Tensor, naive: Tensor, inputs: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(ours, naive)
    weights = torch.randn_like(naive)
    for found, wanted in zip(
        torch.autograd.grad(ours, inputs, weights), torch.autograd.grad(naive, inputs, weights), strict=True
    ):
        torch.testing.assert_close(found, wanted)


@settings(max_examples=40, deadline=None)
@given(grid=st.tuples(SIZES, SIZES), block=st.tuples(SIZES, SIZES), k=SIZES, rank=st.integers(1, 3))
def test_delta_weight_is_the_sum_of_kronecker_products(
    grid: tuple[int, int], block: tuple[int, int], k: int, rank: int
) -> None:
    _, weight, columns, rows, position_weights, _, _ = splopa_case(grid, block, k, rank)
    ours = splopa.delta_weight(columns, rows, position_weights, tuple(weight.shape))
    torch.testing.assert_close(ours, naive_delta(columns, rows, position_weights, grid))


@settings(max_examples=40, deadline=None)
@given(grid=st.tuples(SIZES, SIZES), block=st.tuples(SIZES, SIZES), k=SIZES, rank=st.integers(1, 3))
def test_splopa_has_the_output_and_gradients_of_the_naive_formula(
    grid: tuple[int, int], block: tuple[int, int], k: int, rank: int
) -> None:
    case = splopa_case(grid, block, k, rank)
    x, weight, columns, rows, position_weights, mask, bias = case
    effective = expand(mask, block) * (weight + naive_delta(columns, rows, position_weights, grid))
    assert_same_gradients(splopa.splopa_linear(*case), F.linear(x, effective, bias), case)


@settings(max_examples=60, deadline=None)
@given(
    masks=st.tuples(SIZES, SIZES),
    mask_block=st.tuples(SIZES, SIZES),
    block=st.tuples(SIZES, SIZES),
    k=SIZES,
    rank=st.integers(1, 3),
)
def test_blocks_that_do_not_divide_and_masks_of_another_grid(
    masks: tuple[int, int], mask_block: tuple[int, int], block: tuple[int, int], k: int, rank: int
) -> None:
    """ΔW is cut out of the blocks that cover the weight, and any mask that divides the weight may lie over it."""
    size = masks[0] * mask_block[0], masks[1] * mask_block[1]
    grid = -(-size[0] // block[0]), -(-size[1] // block[1])
    x, _, columns, rows, position_weights, _, bias = splopa_case(grid, block, k, rank)
    x, bias = (tensor.detach()[..., :end].requires_grad_() for tensor, end in ((x, size[1]), (bias, size[0])))
    weight, mask = (torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in (size, masks))
    delta = naive_delta(columns, rows, position_weights, grid)[: size[0], : size[1]]
    effective = expand(mask, mask_block) * (weight + delta)
    case = (x, weight, columns, rows, position_weights, mask, bias)
    assert_same_gradients(splopa.splopa_linear(*case), F.linear(x, effective, bias), case)
    torch.testing.assert_close(splopa.effective_weight(*case[1:6]), effective)


@settings(max_examples=40, deadline=None)
@given(grid=st.tuples(SIZES, SIZES), block=st.tuples(SIZES, SIZES), rank=st.integers(1, 3))
def test_splora_has_the_output_and_gradients_of_the_naive_formula(
    grid: tuple[int, int], block: tuple[int, int], rank: int
) -> None:
    case = splora_case(grid, block, rank)
    x, weight, b, a, mask, bias = case
    effective = expand(mask, block) * (weight + b @ a)
    assert_same_gradients(splora.splora_linear(*case), F.linear(x, effective, bias), case)


def test_gradients_agree_with_finite_differences() -> None:
    assert torch.autograd.gradcheck(splopa.splopa_linear, splopa_case((2, 3), (3, 2), 2, 2))
    assert torch.autograd.gradcheck(splora.splora_linear, splora_case((2, 3), (3, 2), 2))


@pytest.mark.parametrize("wanted", range(7))
def test_each_gradient_alone_is_the_one_found_with_all_others(wanted: int) -> None:
    case = splopa_case((2, 3), (3, 2), 2, 2)
    alone = tuple(t.detach().requires_grad_(index == wanted) for index, t in enumerate(case))
    splopa.splopa_linear(*alone).square().sum().backward()
    expected = torch.autograd.grad(splopa.splopa_linear(*case).square().sum(), case[wanted])[0]
    torch.testing.assert_close(alone[wanted].grad, expected)
    assert [t.grad is None for t in alone] == [index != wanted for index in range(7)]


@pytest.mark.parametrize("wanted", range(6))
def test_each_splora_gradient_alone_is_the_one_found_with_all_others(wanted: int) -> None:
    case = splora_case((2, 3), (3, 2), 2)
    alone = tuple(t.detach().requires_grad_(index == wanted) for index, t in enumerate(case))
    splora.splora_linear(*alone).square().sum().backward()
    expected = torch.autograd.grad(splora.splora_linear(*case).square().sum(), case[wanted])[0]
    torch.testing.assert_close(alone[wanted].grad, expected)
    assert [t.grad is None for t in alone] == [index != wanted for index in range(6)]


def test_no_bias_and_a_boolean_mask() -> None:
    x, weight, columns, rows, position_weights, mask, _ = splopa_case((2, 3), (3, 2), 2, 1)
    kept = mask > 0
    effective = expand(kept.double(), (3, 2)) * (weight + naive_delta(columns, rows, position_weights, (2, 3)))
    ours = splopa.splopa_linear(x, weight, columns, rows, position_weights, kept, None)
    assert_same_gradients(ours, F.linear(x, effective), (x, columns, rows, position_weights))


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


def test_no_tensor_is_larger_than_the_weight() -> None:
    case = splopa_case((8, 8), (8, 8), 16, 2, torch.float32)
    with Largest() as largest:
        splopa.splopa_linear(*case).sum().backward()
    assert largest.numel == case[1].numel()


@pytest.mark.parametrize("method", ["splopa", "splora"])
def test_autocast_multiplies_in_bfloat16_and_keeps_parameter_gradients_in_float32(method: str) -> None:
    case = (
        splopa_case((3, 2), (8, 8), 4, 1, torch.float32)
        if method == "splopa"
        else splora_case((3, 2), (8, 8), 2, torch.float32)
    )
    function: Any = splopa.splopa_linear if method == "splopa" else splora.splora_linear
    with torch.autocast("cpu", torch.bfloat16):
        output = function(*case)
    exact = function(*case)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), exact, rtol=0.05, atol=0.3)
    rounded = torch.autograd.grad(output.float().sum(), case)
    for found, wanted in zip(rounded, torch.autograd.grad(exact.sum(), case), strict=True):
        assert found.dtype == torch.float32
        assert F.cosine_similarity(found.flatten(), wanted.flatten(), dim=0) > 0.999
