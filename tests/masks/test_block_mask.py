"""What holds for every method's BlockMask, and its life: thresholds, seeds, checkpoints."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from splora.errors import InputError
from splora.masks import INITS, METHODS, BlockMask, block_mean_abs, update_global_cutoffs
from splora.training import specification

FRACTIONS = ("magnitude", "topK", "topK_global")
SHAPE, BLOCK = (80, 60), (4, 3)
WEIGHT = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


def block_means() -> Tensor:
    return block_mean_abs(WEIGHT, BLOCK)


def build(method: str, v: float = 0.5, index: int = 0, seed: int = 5) -> BlockMask:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        mask = BlockMask(SHAPE, BLOCK, method, "uniform", 1.0, index=index)
    mask.set_threshold(v)
    update_global_cutoffs([mask])
    return mask


def test_methods_and_inits_are_those_a_row_may_name() -> None:
    assert {*METHODS, "none"} == set(specification.METHODS)
    assert specification.FIELDS["mask_init"].metadata["choices"] == INITS


@pytest.mark.parametrize("method", METHODS)
def test_density_invariants(method: str) -> None:
    mask = build(method).eval()
    blocks = math.prod(mask.grid)
    assert mask.grid == (20, 20)
    previous = None
    for v in (-1.0, 0.0, 0.001, 0.1, 0.3, 0.5, 0.77, 0.999, 1.0):
        mask.set_threshold(v)
        update_global_cutoffs([mask])
        kept, values = mask.binary(block_means), mask(block_means)
        assert kept.dtype == torch.bool
        assert torch.equal(values, kept.to(values.dtype))
        assert values.shape == mask.grid
        count = int(kept.sum())
        if method in FRACTIONS:
            assert count == max(1, round(v * blocks))
        else:
            assert count >= blocks * 0.005
        if previous is not None:
            small, large = (previous, kept) if method in FRACTIONS else (kept, previous)
            assert not (small & ~large).any(), "masks of a sweep are nested"
        previous = kept


@pytest.mark.parametrize("method", METHODS)
def test_a_training_mask_stays_in_its_range_and_reaches_the_scores(method: str) -> None:
    mask = build(method, 0.4)
    values = mask(block_means)
    assert values.shape == mask.grid
    assert values.min() >= 0
    assert values.max() <= 1
    if mask.scores is None:
        assert not values.requires_grad
        return
    upstream = torch.randn(mask.grid)
    values.backward(upstream)
    assert mask.scores.grad is not None
    if method == "l0":
        assert mask.scores.grad.abs().sum() > 0
    else:
        assert torch.equal(mask.scores.grad, upstream)
        assert torch.equal(values.bool(), mask.binary())


@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_restores_the_mask(method: str) -> None:
    saved = build(method, 0.3)
    loaded = build(method, 0.9, seed=6)
    before = loaded.eval().binary(block_means)
    loaded.load_state_dict(saved.state_dict())
    assert loaded.threshold == 0.3
    assert torch.equal(loaded.binary(block_means), saved.eval().binary(block_means))
    if method != "l0" or saved.scores is None:
        assert not torch.equal(before, loaded.binary(block_means))
    if saved.scores is not None and loaded.scores is not None:
        assert torch.equal(loaded.scores, saved.scores)
    if method == "topK_global":
        assert torch.equal(loaded.global_mask, saved.global_mask)


@pytest.mark.parametrize("method", METHODS)
def test_a_copy_is_independent(method: str) -> None:
    mask = build(method, 0.3)
    twin = copy.deepcopy(mask)
    twin.set_threshold(0.9)
    assert (mask.threshold, mask.threshold_value.item()) == (0.3, 0.3)


def test_half_precision_and_moves_leave_the_threshold_alone() -> None:
    mask = build("topK", 0.3).bfloat16()
    assert mask.threshold_value.item() == 0.3
    assert mask.threshold_value.dtype == torch.float64
    assert build("topK", 0.3).to("meta").to_empty(device="cpu").threshold_value.item() == 0.3


def test_the_global_cut_is_over_all_layers_and_waits_for_its_update() -> None:
    masks = [BlockMask((8, 8), (2, 2), "topK_global", index=i) for i in range(3)]
    other = BlockMask((8, 8), (2, 2), "topK")
    for number, mask in enumerate(masks):
        assert mask.scores is not None
        torch.nn.init.constant_(mask.scores, number)
        mask.set_threshold(0.5)
        assert mask.binary().all()
    update_global_cutoffs([other, *masks])
    assert [int(mask.binary().sum()) for mask in masks] == [0, 8, 16]
    assert masks[1].binary().flatten().tolist() == [True] * 8 + [False] * 8
    update_global_cutoffs([other])


def test_the_global_cut_has_one_threshold() -> None:
    masks = [build("topK_global", v) for v in (0.2, 0.3)]
    with pytest.raises(ValueError, match=r"one threshold.*0\.2, 0\.3"):
        update_global_cutoffs(masks)


def test_l0_noise_is_that_of_seed_step_and_layer_alone() -> None:
    def gates(seed: int, step: int, index: int) -> Tensor:
        mask = build("l0", index=index)
        torch.manual_seed(int(torch.randint(1000, ()).item()))  # other processes stand elsewhere in their own noise
        mask.seed(seed, step)
        state = torch.random.get_rng_state()
        values: Tensor = mask()
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.equal(values, mask())
        return values

    assert torch.equal(gates(1, 2, 3), gates(1, 2, 3))
    variants = [(1, 2, 3), (2, 1, 3), (1, 3, 2), (1, 3, 3), (2, 2, 3), (1, 2, 4), (12, 3, 3), (1, 23, 3)]
    drawn = [gates(*key).detach() for key in variants]
    for i, left in enumerate(drawn):
        assert not any(torch.equal(left, right) for right in drawn[i + 1 :])


def test_unseeded_l0_noise_follows_torchs_generator() -> None:
    mask = build("l0")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = mask(), mask()
        torch.manual_seed(0)
        assert torch.equal(mask(), first)
    assert not torch.equal(first, second)


def test_block_means_are_computed_for_magnitude_only() -> None:
    for method in METHODS:
        if method != "magnitude":
            build(method)(lambda: pytest.fail("computed in vain"))
    with pytest.raises(ValueError, match="block_means"):
        build("magnitude")()


def test_initial_scores() -> None:
    constant = BlockMask(SHAPE, BLOCK, "topK", "constant", 0.25).scores
    uniform = BlockMask(SHAPE, BLOCK, "topK", "uniform", 0.25).scores
    kaiming = BlockMask(SHAPE, BLOCK, "topK", "kaiming", 0.25).scores
    assert constant is not None
    assert uniform is not None
    assert kaiming is not None
    assert constant.unique().tolist() == [0.25]
    assert 0.2 < uniform.abs().max() <= 0.25
    assert 0.8 / 20**0.5 < kaiming.abs().max() <= 1 / 20**0.5


@pytest.mark.parametrize(
    ("method", "init", "sentence"),
    [
        ("topk", "constant", "layer 3: pruning_method is 'topk'; allowed are .*did you mean 'topK'"),
        ("none", "constant", "layer 3: pruning_method is 'none'"),
        ("topK", "unifrom", "layer 3: mask_init is 'unifrom'; .*did you mean 'uniform'"),
    ],
)
def test_unknown_names_are_refused(method: str, init: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        BlockMask(SHAPE, BLOCK, method, init, where="layer 3")


@pytest.mark.parametrize("v", [math.nan, math.inf])
def test_a_threshold_is_a_finite_number(v: float) -> None:
    with pytest.raises(InputError, match="finite"):
        build("topK").set_threshold(v)
