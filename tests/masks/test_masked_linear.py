"""MaskedLinear and its masked weight against the same thing written with full-size masks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from splora.masks import METHODS, BlockMask, MaskedLinear, expand, mask_weight, update_global_cutoffs

SIZES = st.integers(1, 4)


@settings(deadline=None, max_examples=40)
@given(rows=SIZES, cols=SIZES, p=SIZES, q=SIZES, transposed=st.booleans())
def test_masked_weight_and_both_gradients_are_those_of_the_naive_product(
    rows: int, cols: int, p: int, q: int, transposed: bool
) -> None:
    weight = torch.randn(cols * q, rows * p).T if transposed else torch.randn(rows * p, cols * q)
    weight.requires_grad_()
    mask = torch.rand(rows, cols).mul(2).floor().requires_grad_()
    upstream = torch.randn(rows * p, cols * q)
    product, naive = mask_weight(weight, mask, (p, q)), weight * expand(mask, (p, q))
    assert torch.equal(product, naive)
    got = torch.autograd.grad(product, (weight, mask), upstream)
    expected = torch.autograd.grad(naive, (weight, mask), upstream)
    assert torch.equal(got[0], expected[0])
    torch.testing.assert_close(got[1], expected[1])


def test_gradients_of_gates_between_zero_and_one() -> None:
    weight = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, m: mask_weight(w, m, (2, 3)), (weight, mask))


def test_backward_keeps_the_weight_itself_and_one_number_per_block() -> None:
    weight = torch.randn(64, 96, requires_grad=True)
    mask = torch.ones(8, 12, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        mask_weight(weight, mask, (8, 8))
    assert {tensor.data_ptr() for tensor in kept} == {weight.data_ptr(), mask.data_ptr()}
    kept.clear()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        mask_weight(weight, mask.detach(), (8, 8))
    assert [tensor.numel() for tensor in kept] == [mask.numel()]


def test_frozen_weights_get_no_gradient() -> None:
    weight, mask = torch.randn(4, 6), torch.ones(2, 2, requires_grad=True)
    mask_weight(weight, mask, (2, 3)).sum().backward()
    assert weight.grad is None
    assert mask.grad is not None
    torch.testing.assert_close(mask.grad, weight.unflatten(0, (2, 2)).unflatten(2, (2, 3)).sum((1, 3)))


def layer(method: str, bias: bool = True) -> MaskedLinear:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        linear = nn.Linear(24, 16, bias=bias)
        mask = BlockMask((16, 24), (4, 3), method, "uniform", 1.0)
    mask.set_threshold(0.4)
    mask.seed(0, 7)
    update_global_cutoffs([mask])
    return MaskedLinear(linear, mask)


def naive_mask(masked: MaskedLinear) -> Tensor:
    values: Tensor = masked.block_mask(masked.block_means)
    return expand(values, (4, 3))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_it_is_the_linear_layer_of_the_masked_weight(method: str, bias: bool, training: bool) -> None:
    masked = layer(method, bias).train(training)
    x = torch.randn(2, 5, 24, requires_grad=True)
    parameters = [x, *masked.parameters()]
    naive = F.linear(x, masked.weight * naive_mask(masked), masked.bias)
    got = masked(x)
    assert torch.equal(got, naive)
    upstream = torch.randn_like(got)
    for left, right in zip(
        torch.autograd.grad(got, parameters, upstream),
        torch.autograd.grad(naive, parameters, upstream),
        strict=True,
    ):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("method", METHODS)
def test_under_autocast_it_is_what_autocast_makes_of_the_naive_layer(method: str) -> None:
    masked = layer(method)
    x = torch.randn(6, 24)
    parameters = list(masked.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        got = masked(x)
        naive = F.linear(x, masked.weight * naive_mask(masked), masked.bias)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, naive)
    upstream = torch.randn(6, 16).bfloat16()
    for left, right in zip(
        torch.autograd.grad(got, parameters, upstream),
        torch.autograd.grad(naive, parameters, upstream),
        strict=True,
    ):
        assert left.dtype == torch.float32
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


def test_autocast_leaves_double_precision_alone() -> None:
    weight = torch.randn(4, 4, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert mask_weight(weight, torch.ones(2, 2), (2, 2)).dtype == torch.float64


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_weights_work(method: str) -> None:
    masked = layer(method).bfloat16()
    masked(torch.randn(3, 24).bfloat16()).sum().backward()
    assert masked.weight.grad is not None
    assert masked.weight.grad.dtype == torch.bfloat16


def test_it_reads_like_the_linear_layer() -> None:
    masked = layer("topK")
    assert masked.weight is masked.base_layer.weight
    assert masked.bias is masked.base_layer.bias
    assert (masked.in_features, masked.out_features) == (24, 16)


@pytest.mark.parametrize("options", [{}, {"foreach": True}, {"fused": True}])
def test_magnitude_follows_every_optimizer_step_even_in_evaluation(options: dict[str, bool]) -> None:
    masked = layer("magnitude").eval()
    optimizer = torch.optim.SGD(masked.parameters(), lr=1.0, **options)
    before = masked.binary_mask()
    (masked.weight - masked.weight.flip(0, 1)).square().sum().mul(0.125).backward()
    optimizer.step()
    means = masked.weight.unflatten(0, (4, 4)).unflatten(2, (8, 3)).abs().mean((1, 3)).flatten()
    kept = torch.zeros(32, dtype=torch.bool).index_fill(0, means.argsort(descending=True)[:13], True)
    assert torch.equal(masked.binary_mask().flatten(), kept)
    assert not torch.equal(masked.binary_mask(), before)
