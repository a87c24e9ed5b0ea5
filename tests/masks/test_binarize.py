"""Each binarizer against a loop, and what holds for all: straight-through gradients, densities, ties."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from splora.masks import binarize

Binarizer = Callable[[Tensor, float], Tensor]
STRAIGHT: dict[str, Binarizer] = {
    "topK": binarize.topk,
    "topK_global": lambda scores, v: binarize.topk_global([scores], v)[0],
    "threshold": binarize.threshold,
    "sigmoid_threshold": binarize.sigmoid_threshold,
    "l0": lambda scores, v: binarize.hard_concrete(scores, None),
}
GRIDS = st.tuples(st.integers(1, 9), st.integers(1, 30))
#: Few distinct values, so that ties are the rule.
SCORES = st.sampled_from([-3.0, -0.5, -0.0, 0.0, 0.25, 0.5, 2.0, 200.0])


@st.composite
def tied_scores(draw: st.DrawFn) -> Tensor:
    rows, cols = draw(GRIDS)
    return torch.tensor(draw(st.lists(SCORES, min_size=rows * cols, max_size=rows * cols))).view(rows, cols)


def naive_largest(scores: Tensor, count: int) -> Tensor:
    flat = scores.flatten().tolist()
    kept = sorted(range(len(flat)), key=lambda i: (-flat[i], i))[:count]
    return torch.tensor([float(i in kept) for i in range(len(flat))]).view(scores.shape)


def naive_passing(scores: Tensor, passes: Callable[[float], bool]) -> Tensor:
    mask = torch.tensor([[float(passes(s)) for s in row] for row in scores.tolist()])
    least = math.ceil(scores.numel() / 200)
    return mask if mask.sum() >= least else naive_largest(scores, least)


@settings(deadline=None, max_examples=80)
@given(scores=tied_scores(), v=st.floats(0, 1.2))
def test_topk_and_magnitude_keep_exactly_the_fraction_and_the_first_of_equals(scores: Tensor, v: float) -> None:
    count = min(scores.numel(), max(1, round(v * scores.numel())))
    expected = naive_largest(scores, count)
    assert expected.sum() == count
    assert torch.equal(binarize.topk(scores, v), expected)
    assert torch.equal(binarize.magnitude(scores, v), expected)


@settings(deadline=None, max_examples=60)
@given(layers=st.lists(tied_scores(), min_size=1, max_size=4), v=st.floats(0, 1))
def test_global_topk_is_topk_of_all_layers_in_a_row(layers: list[Tensor], v: float) -> None:
    flat = torch.cat([layer.flatten() for layer in layers])
    masks = binarize.topk_global(layers, v)
    assert [mask.shape for mask in masks] == [layer.shape for layer in layers]
    assert torch.equal(torch.cat([mask.flatten() for mask in masks]), binarize.topk(flat, v))


@settings(deadline=None, max_examples=80)
@given(scores=tied_scores(), v=st.sampled_from([-1.0, 0.0, 0.25, 0.3, 0.5, 0.9, 1.0, 300.0]))
def test_threshold_kinds_are_the_loop(scores: Tensor, v: float) -> None:
    assert torch.equal(binarize.threshold(scores, v), naive_passing(scores, lambda s: s > v))
    sigmoid = naive_passing(scores, lambda s: torch.tensor(s).sigmoid().item() > v)
    assert torch.equal(binarize.sigmoid_threshold(scores, v), sigmoid)


@pytest.mark.parametrize("kind", ["threshold", "sigmoid_threshold"])
@pytest.mark.parametrize(("grid", "least"), [((1, 1), 1), ((4, 50), 1), ((3, 67), 2), ((24, 96), 12)])
def test_a_threshold_mask_keeps_half_a_percent_whatever_v(kind: str, grid: tuple[int, int], least: int) -> None:
    scores = torch.randn(grid)
    mask = STRAIGHT[kind](scores, 1e9)
    assert mask.sum() == least >= 0.005 * scores.numel()
    assert torch.equal(mask, naive_largest(scores, least))


@pytest.mark.parametrize("kind", STRAIGHT)
@settings(deadline=None, max_examples=30)
@given(grid=GRIDS, v=st.floats(0, 1))
def test_the_gradient_of_the_scores_is_the_gradient_of_the_mask(kind: str, grid: tuple[int, int], v: float) -> None:
    scores = torch.randn(grid, requires_grad=True)
    mask = STRAIGHT[kind](scores, v)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    upstream = torch.randn(grid)
    mask.backward(upstream)
    assert scores.grad is not None
    assert torch.equal(scores.grad, upstream)


def test_global_gradients_stay_in_their_layer() -> None:
    layers = [torch.randn(2, 3, requires_grad=True), torch.randn(4, 1, requires_grad=True)]
    masks = binarize.topk_global(layers, 0.5)
    (masks[0].sum() * 2 + masks[1].sum() * 3).backward()
    assert [layer.grad.unique().tolist() for layer in layers if layer.grad is not None] == [[2.0], [3.0]]


def test_magnitude_sends_no_gradient() -> None:
    means = torch.rand(3, 4, requires_grad=True)
    assert not binarize.magnitude(means, 0.5).requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_masks_keep_the_dtype_of_the_scores(dtype: torch.dtype) -> None:
    scores = torch.randn(6, 7).to(dtype)
    for kind, binarizer in STRAIGHT.items():
        assert binarizer(scores, 0.4).dtype == dtype, kind


def test_hard_concrete_samples_follow_the_paper_and_its_expectation() -> None:
    scores = torch.linspace(-4, 4, 9).view(3, 3).double()
    samples = 40_000
    noise = torch.rand(samples, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gates = binarize.hard_concrete(scores.expand(samples, 3, 3), noise)
    u, score = noise[7, 1, 2].item(), scores[1, 2].item()
    sigmoid = 1 / (1 + math.exp(-(math.log(u) - math.log(1 - u) + score) / (2 / 3)))
    assert gates[7, 1, 2].item() == pytest.approx(min(1.0, max(0.0, sigmoid * 1.2 - 0.1)))
    on = (scores - 2 / 3 * math.log(0.1 / 1.1)).sigmoid()
    error = (on * (1 - on) / samples).sqrt()
    assert ((gates > 0).double().mean(0) - on).abs().lt(5 * error).all()
    assert gates.min() == 0
    assert gates.max() == 1


def test_hard_concrete_gradient_is_its_own() -> None:
    scores = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    noise = torch.rand(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: binarize.hard_concrete(s, noise), (scores,))


@settings(deadline=None, max_examples=40)
@given(scores=tied_scores())
def test_an_evaluated_gate_is_kept_where_the_deterministic_one_is_at_least_half(scores: Tensor) -> None:
    deterministic = (scores.double().sigmoid() * 1.2 - 0.1).clamp(0, 1)
    assert torch.equal(binarize.hard_concrete(scores, None), (deterministic >= 0.5).float())
