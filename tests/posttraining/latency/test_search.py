"""The latency search against every plan there is, on models so small that all can be tried; and what always holds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from splora.errors import InputError
from splora.export.plan import Plan
from splora.posttraining.latency import search as latency_search
from splora.posttraining.latency.fit import LatencyFit
from splora.posttraining.latency.search import predicted_milliseconds, search_latency

#: Multiples of a quarter: ties happen, and sums are exact.
SCORES = st.integers(0, 12).map(lambda quarters: quarters / 4)
FITS = st.builds(LatencyFit, st.integers(1, 2), st.sampled_from([0.0, 0.5, 1.0, 2.5]), st.sampled_from([0.0, 0.25, 1]))


def tensors(rows: Sequence[Sequence[float]]) -> list[Tensor]:
    """Importances per layer."""
    return [torch.tensor(row, dtype=torch.float64) for row in rows]


def loss(plan: Plan, heads: Sequence[Tensor], neurons: Sequence[Tensor]) -> float:
    """Sum of the importances that a plan prunes."""
    kept = zip((*plan.heads, *plan.neurons), (*heads, *neurons), strict=True)
    return sum(float(scores.sum() - scores[list(units)].sum()) for units, scores in kept)


def random_scores(seed: int, layers: int, units: int) -> list[Tensor]:
    """Importances as uneven as real ones: between layers, and between units of one."""
    generator = torch.Generator().manual_seed(seed)
    of_layer = torch.empty(layers, 1, dtype=torch.float64).log_normal_(generator=generator)
    return list(of_layer * torch.empty(layers, units, dtype=torch.float64).log_normal_(generator=generator))


def least_loss(
    heads: list[Tensor], neurons: list[Tensor], head_fit: LatencyFit, neuron_fit: LatencyFit, budget: float
) -> float:
    """The least loss of all subsets of units that keep to the budget."""

    def subsets(scores: Tensor) -> list[tuple[int, ...]]:
        return [
            chosen for size in range(len(scores) + 1) for chosen in itertools.combinations(range(len(scores)), size)
        ]

    kept = (
        Plan(parts[: len(heads)], parts[len(heads) :])
        for parts in itertools.product(*(subsets(scores) for scores in (*heads, *neurons)))
    )
    return min(
        loss(plan, heads, neurons)
        for plan in kept
        if predicted_milliseconds(plan, head_fit, neuron_fit) <= budget * (1 + 1e-9)
    )


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(SCORES, min_size=2, max_size=2), min_size=2, max_size=2),
    st.lists(st.lists(SCORES, min_size=3, max_size=3), min_size=2, max_size=2),
    FITS,
    FITS,
    st.integers(0, 40).map(lambda quarters: quarters / 4),
)
def test_no_plan_at_all_within_the_budget_loses_less(
    heads: list[list[float]], neurons: list[list[float]], head_fit: LatencyFit, neuron_fit: LatencyFit, budget: float
) -> None:
    scores = tensors(heads), tensors(neurons)
    plan = search_latency(*scores, head_fit, neuron_fit, budget)
    assert loss(plan, *scores) == pytest.approx(least_loss(*scores, head_fit, neuron_fit, budget))
    assert predicted_milliseconds(plan, head_fit, neuron_fit) <= budget * (1 + 1e-8)


def test_three_layers_of_different_sizes_are_searched_exactly() -> None:
    heads, neurons = tensors([[5, 1], [3], [2, 2]]), tensors([[1, 4], [9, 0.5, 0.25], [3]])
    for budget in (0, 1.5, 2, 3.5, 5, 7, 9, 12):
        plan = search_latency(heads, neurons, LatencyFit(2, 1.0, 1.0), LatencyFit(1, 1.5, 0.5), budget)
        least = least_loss(heads, neurons, LatencyFit(2, 1.0, 1.0), LatencyFit(1, 1.5, 0.5), budget)
        assert loss(plan, heads, neurons) == pytest.approx(least)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 20), st.floats(0, 1), st.floats(0, 1))
def test_more_budget_never_loses_more(seed: int, threshold: int, one: float, other: float) -> None:
    heads, neurons = random_scores(seed, 8, 4), random_scores(seed + 1, 8, 24)
    fits = LatencyFit(1, 1.0, 0.3), LatencyFit(threshold, 2.0, 0.1)
    whole = 8 * (fits[0].at(4) + fits[1].at(24))
    plans = [search_latency(heads, neurons, *fits, part * whole) for part in sorted((one, other))]
    assert loss(plans[1], heads, neurons) <= loss(plans[0], heads, neurons) + 1e-9
    for plan, part in zip(plans, sorted((one, other)), strict=True):
        assert predicted_milliseconds(plan, *fits) <= part * whole * (1 + 1e-8)
        for kept in plan.neuron_counts:
            assert kept == 0 or kept >= threshold


@pytest.mark.parametrize("threshold", [1, 12, 24])
def test_many_layers_come_near_the_exact_search(threshold: int, monkeypatch: pytest.MonkeyPatch) -> None:
    heads, neurons = random_scores(0, 8, 4), random_scores(1, 8, 24)
    fits = LatencyFit(1, 1.0, 0.3), LatencyFit(threshold, 2.0, 0.1)
    whole = 8 * (fits[0].at(4) + fits[1].at(24))
    for part in (0.2, 0.4, 0.6, 0.8):
        by_prices = loss(search_latency(heads, neurons, *fits, part * whole), heads, neurons)
        with monkeypatch.context() as patched:
            patched.setattr(latency_search, "_FEW_LAYERS", 8)
            exact = loss(search_latency(heads, neurons, *fits, part * whole), heads, neurons)
        assert exact - 1e-9 <= by_prices <= 1.02 * exact


def test_a_layer_worth_nothing_is_dropped_whole() -> None:
    heads = [torch.ones(4).double(), torch.full((4,), 1e-6).double()]
    neurons = [torch.ones(8).double(), torch.full((8,), 1e-6).double()]
    fits = LatencyFit(4, 3.0, 0.0), LatencyFit(8, 5.0, 0.0)
    assert search_latency(heads, neurons, *fits, 8.0) == Plan(((0, 1, 2, 3), ()), (tuple(range(8)), ()))


def test_units_without_cost_all_stay() -> None:
    heads, neurons = random_scores(0, 3, 4), random_scores(1, 3, 8)
    heads[0][:] = 0
    plan = search_latency(heads, neurons, LatencyFit(1, 1.0, 0.0), LatencyFit(2, 1.0, 0.0), 6.0)
    assert plan.neuron_counts == [8, 8, 8]
    assert plan.head_counts[1:] == [4, 4]


def test_the_dense_latency_keeps_all_and_none_keeps_nothing() -> None:
    heads, neurons = random_scores(0, 7, 3), random_scores(1, 7, 5)
    fits = LatencyFit(1, 0.3, 0.1), LatencyFit(2, 0.7, 0.1)
    whole = 7 * (fits[0].at(3) + fits[1].at(5))
    plan = search_latency(heads, neurons, *fits, whole)
    assert (plan.head_counts, plan.neuron_counts) == ([3] * 7, [5] * 7)
    nothing = search_latency(heads, neurons, *fits, 0.0)
    assert (nothing.head_counts, nothing.neuron_counts) == ([0] * 7, [0] * 7)


def test_what_cannot_be_spent_is_told() -> None:
    scores, fits = random_scores(0, 2, 3), (LatencyFit(1, 1.0, 1.0), LatencyFit(1, 1.0, 1.0))
    with pytest.raises(InputError, match="leaves -1 ms for heads and neurons; the smallest possible is 0"):
        search_latency(scores, scores, *fits, -1.0)
    broken = [scores[0], torch.full((3,), torch.nan).double()]
    with pytest.raises(InputError, match="importances of neurons hold negative values, infinity or NaN"):
        search_latency(scores, broken, *fits, 1.0)
