"""Scores from importances: by rank, evenly spread."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splora.masks import BlockMask, update_global_cutoffs
from splora.masks.binarize import keep_within
from splora.masks.first_scores import spread, start_scores


@settings(deadline=None, max_examples=40)
@given(values=st.lists(st.integers(-9, 9), min_size=1, max_size=30))
def test_ranks_rise_with_importance_and_lie_evenly(values: list[int]) -> None:
    ranks = spread(torch.tensor(values, dtype=torch.float64))
    wanted = sorted(range(len(values)), key=lambda at: (values[at], -at))
    assert sorted(range(len(values)), key=ranks.tolist().__getitem__) == wanted
    torch.testing.assert_close(ranks.sort().values, torch.linspace(-1, 1, len(values)) if len(values) > 1 else ranks)


@pytest.mark.parametrize("method", ["topK", "topK_global", "sigmoid_threshold", "l0"])
def test_masks_start_with_what_matters_most(method: str) -> None:
    masks = [BlockMask((4, 8), (2, 2), method, "magnitude", 2.0, index=number) for number in range(2)]
    importances = [torch.arange(8.0).view(2, 4) * 10**number for number in range(2)]
    start_scores(masks, importances)
    for mask in masks:
        assert mask.scores is not None
        low = 0.0 if method == "l0" else -2.0
        assert low <= float(mask.scores.detach().min()) <= float(mask.scores.detach().max()) <= low + 4.0
        mask.set_threshold(0.5)
    update_global_cutoffs(masks)
    if method == "topK":
        assert all(torch.equal(mask.binary(), torch.arange(8).view(2, 4) >= 4) for mask in masks)
    if method == "topK_global":
        assert [int(mask.binary().sum()) for mask in masks] == [1, 7]  # of 16, by one scale for both


@settings(deadline=None, max_examples=60)
@given(
    scores=st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=6), min_size=1, max_size=4),
    costs=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    fraction=st.floats(0, 1),
)
def test_masks_within_a_budget_are_those_of_a_naive_loop(
    scores: list[list[int]], costs: list[int], fraction: float
) -> None:
    layers = [torch.tensor(values, dtype=torch.float32) for values in scores]
    found = keep_within(layers, costs[: len(layers)], fraction)
    units = [(layer, place) for layer, values in enumerate(scores) for place in range(len(values))]
    ranking = sorted(units, key=lambda unit: (-scores[unit[0]][unit[1]], unit))
    total = sum(costs[layer] for layer, _ in ranking)
    kept: list[tuple[int, int]] = []
    for unit in ranking:
        if kept and sum(costs[layer] for layer, _ in [*kept, unit]) > fraction * total + 1e-6:
            break
        kept.append(unit)
    assert [
        (layer, place) for layer, mask in enumerate(found) for place in mask.nonzero().flatten().tolist()
    ] == sorted(kept)


def test_heads_and_neurons_compete_for_macs() -> None:
    head, neuron = (BlockMask((4, 4), (4, 1), "topK_global", "stat", 1.0, unit=unit) for unit in ("head", "neuron"))
    head.cost, neuron.cost = 10.0, 1.0
    # Per MAC: heads are worth 1, 2, 3 and 4, neurons 1.5, 2.5, 3.5 and 4.5.
    start_scores([head, neuron], [torch.tensor([10.0, 20, 30, 40]), torch.tensor([1.5, 2.5, 3.5, 4.5])])
    for mask in (head, neuron):
        mask.set_threshold(0.5)
    update_global_cutoffs([head, neuron])
    # Of 44, 22 may stay: a neuron, a head, a neuron, a head; the next neuron would make 23.
    assert head.binary().flatten().tolist() == [False, False, True, True]
    assert neuron.binary().flatten().tolist() == [False, False, True, True]
