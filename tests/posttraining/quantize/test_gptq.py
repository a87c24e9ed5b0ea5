"""GPTQ against a literal column-by-column loop and against rounding; grids of every width."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from splora.errors import InputError
from splora.posttraining.quantize.gptq import Hessian, factorize, gptq, output_errors
from splora.posttraining.quantize.grid import GridOptions, fit_grid, round_to_nearest, to_codes


def layer(seed: int, rows: int = 6, columns: int = 24, tokens: int = 50) -> tuple[Tensor, Tensor]:
    """Weights and the Hessian of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator)
    hessian = Hessian(columns, torch.device("cpu"))
    for part in torch.randn(tokens, columns, generator=generator).split(20):
        hessian.add(part @ mixing)
    return torch.randn(rows, columns, generator=generator), hessian.matrix()


def test_the_hessian_is_twice_the_mean_outer_product() -> None:
    inputs = torch.randn(37, 10, generator=torch.Generator().manual_seed(0))
    hessian = Hessian(10, torch.device("cpu"))
    for part in inputs.split(9):
        hessian.add(part)
    torch.testing.assert_close(hessian.matrix(), 2 * inputs.T @ inputs / 37)


def literal(weight: Tensor, hessian: Tensor, options: GridOptions, damping: float) -> Tensor:
    """Round one column after the other, updating all later ones and eliminating the column from the inverse."""
    weight = weight.double().clone()
    exact = hessian.double()
    inverse = torch.linalg.inv(exact + damping * exact.diagonal().mean() * torch.eye(len(exact)))
    width = options.width(weight.shape[1])
    for column in range(weight.shape[1]):
        if column % width == 0:
            step, zero = fit_grid(weight[:, column : column + width].T.float(), options)
        code = to_codes(weight[:, column].float(), step, zero, options)
        rounded = ((code - zero) * step).double()
        error = (weight[:, column] - rounded) / inverse[column, column]
        weight[:, column:] -= torch.outer(error, inverse[column, column:])
        weight[:, column] = rounded
        inverse -= torch.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    return weight.float()


@pytest.mark.parametrize("group_size", [None, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_blocks_give_what_the_literal_loop_gives(group_size: int | None, symmetric: bool) -> None:
    options = GridOptions(4, group_size, symmetric)
    weight, hessian = layer(1)
    found = gptq(weight, factorize(hessian), options).dequantize()
    wanted = literal(weight, hessian, options, 0.01)
    nearest = round_to_nearest(weight, options).dequantize()
    # A row is rounded to nearest where that is the better one.
    for row in range(len(weight)):
        candidates = [wanted[row], nearest[row]]
        assert any(torch.allclose(found[row], candidate, atol=1e-4) for candidate in candidates)
    same = sum(torch.allclose(found[row], wanted[row], atol=1e-4) for row in range(len(weight)))
    assert same >= len(weight) - 1


def test_with_unrelated_inputs_it_is_rounding() -> None:
    weight, _ = layer(2)
    diagonal = torch.diag(torch.rand(24, generator=torch.Generator().manual_seed(3)) + 0.5)
    options = GridOptions(3, 8)
    found, nearest = gptq(weight, factorize(diagonal), options), round_to_nearest(weight, options)
    assert torch.equal(found.codes, nearest.codes)
    assert torch.equal(found.dequantize(), nearest.dequantize())


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 6),
    st.sampled_from([2, 3, 4, 8]),
    st.sampled_from([None, 8]),
    st.booleans(),
    st.booleans(),
)
def test_outputs_are_never_worse_than_those_of_rounding(
    seed: int, rows: int, bits: int, group_size: int | None, symmetric: bool, act_order: bool
) -> None:
    options = GridOptions(bits, group_size, symmetric)
    weight, hessian = layer(seed, rows)
    before = weight.clone()
    found = gptq(weight, factorize(hessian, act_order=act_order), options)
    ours = output_errors(weight - found.dequantize(), hessian)
    theirs = output_errors(weight - round_to_nearest(weight, options).dequantize(), hessian)
    assert bool((ours <= theirs * (1 + 1e-3) + 1e-6).all())
    assert int(found.codes.max()) <= 2**bits - 1
    assert torch.equal(weight, before)


def test_correlated_inputs_gain_much() -> None:
    weight, hessian = layer(5, rows=40, columns=64, tokens=80)
    options = GridOptions(3)
    ours = output_errors(weight - gptq(weight, factorize(hessian), options).dequantize(), hessian).sum()
    theirs = output_errors(weight - round_to_nearest(weight, options).dequantize(), hessian).sum()
    assert float(ours) < 0.7 * float(theirs)


def test_options_that_do_not_fit_are_told_together() -> None:
    with pytest.raises(InputError) as told:
        GridOptions(5, 12).check(64)
    assert len(told.value.problems) == 2
    with pytest.raises(InputError, match="widest row has 64"):
        GridOptions(4, 128).check(64)
