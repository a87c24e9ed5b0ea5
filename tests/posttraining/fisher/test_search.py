"""The MAC search against brute force; rearrangement against a literal greedy loop; budgets."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from splora.errors import InputError
from splora.export.plan import Plan
from splora.posttraining.core.budget import Costs
from splora.posttraining.fisher.rearrange import joint_loss, rearrange
from splora.posttraining.fisher.search import search_macs


def brute_force(heads: list[Tensor], neurons: list[Tensor], costs: Costs, budget: float) -> float:
    """The largest importance that any choice of heads and neurons keeps within the budget."""
    every_head, every_neuron = torch.cat(heads).tolist(), torch.cat(neurons).tolist()
    best = 0.0
    for chosen_heads in itertools.product((0, 1), repeat=len(every_head)):
        for chosen_neurons in itertools.product((0, 1), repeat=len(every_neuron)):
            if costs.head * sum(chosen_heads) + costs.neuron * sum(chosen_neurons) <= budget:
                kept = sum(a * b for a, b in zip(every_head, chosen_heads, strict=True))
                best = max(best, kept + sum(a * b for a, b in zip(every_neuron, chosen_neurons, strict=True)))
    return best


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=4, max_size=4),
    st.lists(st.integers(0, 9), min_size=6, max_size=6),
    st.integers(1, 6),
    st.integers(1, 4),
    st.floats(0.3, 1.0),
)
def test_the_search_keeps_as_much_as_brute_force(
    heads: list[int], neurons: list[int], head_cost: int, neuron_cost: int, fraction: float
) -> None:
    by_layer = list(torch.tensor(heads).double().split(2)), list(torch.tensor(neurons).double().split(3))
    costs = Costs(head_cost, neuron_cost)
    budget = max(fraction * costs.total([4], [6]), min(head_cost, neuron_cost))
    plan = search_macs(*by_layer, costs, budget)
    assert costs.of_plan(plan) <= budget
    kept = sum(float(layer[list(chosen)].sum()) for layer, chosen in zip(by_layer[0], plan.heads, strict=True))
    kept += sum(float(layer[list(chosen)].sum()) for layer, chosen in zip(by_layer[1], plan.neurons, strict=True))
    assert kept == pytest.approx(brute_force(*by_layer, costs, budget))


def test_the_last_neuron_is_not_bought_by_rounding() -> None:
    heads, neurons = [torch.zeros(4)], [torch.ones(100)]
    costs = Costs(10**9, 10**8)
    whole = costs.total([4], [100])
    assert search_macs(heads, neurons, costs, whole - 1).neuron_counts == [100]
    assert search_macs(heads, neurons, costs, 10**10 - 1).neuron_counts == [99]
    assert search_macs(heads, neurons, costs, 10**10).neuron_counts == [100]


def test_a_budget_below_the_cheapest_part_says_the_smallest_possible() -> None:
    heads, neurons = [torch.ones(2)], [torch.ones(8)]
    with pytest.raises(InputError, match=r"smallest possible is 0\.05"):
        search_macs(heads, neurons, Costs(6, 1), 0.9)


def test_costs_are_those_of_the_linears_and_the_two_attention_products(tiny: Any) -> None:
    model, tokens = tiny("BertForSequenceClassification"), 10
    costs = Costs.of(model, tokens)
    assert costs.head == 4 * tokens * 24 * 6 + 2 * tokens**2 * 6
    assert costs.neuron == 2 * tokens * 24
    assert costs.of_plan(Plan.dense(model)) == 3 * (4 * costs.head + 20 * costs.neuron)


def literal_greedy(gradients: Tensor, kept: Tensor) -> Tensor:
    """Exchange by summing up all chosen rows again at every step; gradients (samples, masks)."""
    rows = gradients.T
    order = rows.square().sum(1).argsort(stable=True).tolist()
    pruned = len(kept) - int(kept.sum())
    chosen = order[:pruned]
    for joining in order[pruned:]:
        chosen.append(joining)
        total = rows[chosen].sum(0)
        lengths = [float((total - rows[member]).square().sum()) for member in chosen]
        del chosen[lengths.index(min(lengths))]
    result = torch.ones(len(kept), dtype=torch.bool)
    result[chosen] = False
    return result


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 14), st.integers(1, 30), st.data())
def test_rearrangement_finds_the_masks_of_the_literal_loop(
    seed: int, masks: int, samples: int, data: st.DataObject
) -> None:
    gradients = torch.randn(samples, masks, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    kept = torch.zeros(masks, dtype=torch.bool)
    kept[: data.draw(st.integers(1, masks - 1))] = True
    found = rearrange(gradients.T @ gradients, kept)
    assert torch.equal(found, literal_greedy(gradients, kept))
    assert int(found.sum()) == int(kept.sum())


def test_rearrangement_prunes_what_cancels_instead_of_what_is_small() -> None:
    """Two equal gradients add up to 4; two slightly larger, opposite ones to 0."""
    gradients = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.1, -1.1]], dtype=torch.float64)
    fisher, kept = gradients.T @ gradients, torch.tensor([False, False, True, True])
    assert joint_loss(fisher, kept) == pytest.approx(4)
    found = rearrange(fisher, kept)
    assert found.tolist() == [True, True, False, False]
    assert joint_loss(fisher, found) == pytest.approx(0)


@pytest.mark.parametrize("count", [0, 5])
def test_nothing_is_exchanged_where_all_or_none_stay(count: int) -> None:
    kept = torch.zeros(5, dtype=torch.bool)
    kept[:count] = True
    assert torch.equal(rearrange(torch.eye(5), kept), kept)
