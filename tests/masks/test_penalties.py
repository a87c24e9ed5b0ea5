"""The penalties against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splora.masks import penalties
from splora.masks.binarize import hard_concrete

LAYERS = st.lists(st.lists(st.floats(-8, 8), min_size=1, max_size=6), min_size=1, max_size=4)


def mean_sigmoid(layers: list[list[float]], shift: float) -> float:
    means = [sum(1 / (1 + math.exp(shift - score)) for score in layer) / len(layer) for layer in layers]
    return sum(means) / len(means)


@settings(deadline=None, max_examples=60)
@given(layers=LAYERS)
def test_each_layer_counts_the_same(layers: list[list[float]]) -> None:
    scores = [torch.tensor([layer], dtype=torch.float64) for layer in layers]
    assert penalties.l1(scores).item() == pytest.approx(mean_sigmoid(layers, 0.0))
    assert penalties.l0(scores).item() == pytest.approx(mean_sigmoid(layers, 2 / 3 * math.log(0.1 / 1.1)))


def test_the_gradient_reaches_every_score() -> None:
    scores = [torch.zeros(2, 3, requires_grad=True), torch.zeros(4, 1, requires_grad=True)]
    penalties.l1(scores).backward()
    for layer in scores:
        assert layer.grad is not None
        torch.testing.assert_close(layer.grad, torch.full_like(layer, 0.25 / layer.numel() / 2))


def test_l0_is_the_share_of_gates_that_are_open() -> None:
    scores = [torch.full((200, 300), -1.0), torch.full((100, 100), 2.0)]
    generator = torch.Generator().manual_seed(3)
    shares = [hard_concrete(s, torch.rand(s.shape, generator=generator)).gt(0).float().mean() for s in scores]
    assert penalties.l0(scores).item() == pytest.approx(torch.stack(shares).mean().item(), abs=5e-3)
