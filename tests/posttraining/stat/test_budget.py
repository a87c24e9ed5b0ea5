"""The published budget rule against a slow literal one, and the default's allocation against all allocations."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from splora.errors import InputError
from splora.posttraining.core.budget import Costs
from splora.posttraining.stat.budget import Counts, Weigh, allocate, by_depth, by_trend, published_counts

Draw = Callable[[int, int, int], list[Tensor]]


def falling(seed: int, layers: int, most: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(0, most + 1, (layers,), generator=generator).tolist()
    return [
        torch.rand(size, generator=generator, dtype=torch.float64).sort(descending=True)[0] * (layer + 1)
        for layer, size in enumerate(sizes)
    ]


def rising_at_times(seed: int, layers: int, most: int) -> list[Tensor]:
    """In no order at all, and some layers without any error."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(0, most + 1, (layers,), generator=generator).tolist()
    zero = torch.rand(layers, generator=generator) < 0.15
    return [
        torch.rand(size, generator=generator, dtype=torch.float64) * (layer + 1) * (not zero[layer])
        for layer, size in enumerate(sizes)
    ]


def literal_depth(errors: list[list[float]]) -> list[float]:
    """What errors of each layer are multiplied by."""
    return [1 + (len(errors) - i + 1) ** 0.5 for i in range(len(errors))]


def literal_trend(errors: list[list[float]]) -> list[float]:
    """As `literal_depth`: a line through the logarithms of the layers' means, without those that are zero."""
    points = [(i, math.log(statistics.fmean(error))) for i, error in enumerate(errors) if any(error)]
    if len(points) < 2:
        return [1.0] * len(errors)
    depths, logarithms = zip(*points, strict=True)
    slope = statistics.linear_regression(depths, logarithms).slope
    return [math.exp(-slope * (i - statistics.fmean(depths))) for i in range(len(errors))]


WEIGHED = {by_depth: literal_depth, by_trend: literal_trend}


def literal_rule(heads: list[Tensor], neurons: list[Tensor], costs: Costs, budget: float, weigh: Weigh) -> Counts:
    """As the rule reads: try every number of heads from none on, sort everything anew each time."""
    layers = len(heads)

    def largest(errors: list[Tensor], count: int) -> tuple[list[int], float]:
        factors = WEIGHED[weigh]([error.tolist() for error in errors])
        weighed = [error.tolist() for error in weigh(errors)]
        for error, found, factor in zip(errors, weighed, factors, strict=True):
            assert found == pytest.approx([factor * value for value in error.tolist()], rel=1e-9, abs=0)
        # The very same numbers: two layers of one unit each lie on their trend, equal but for rounding, which decides.
        # Of an error that rises along the order, the least so far counts.
        listed = [
            (-min(error[: number + 1]), layer, number)
            for layer, error in enumerate(weighed)
            for number in range(len(error))
        ]
        listed.sort()
        kept = [sum(layer == one for _, one, _ in listed[:count]) for layer in range(layers)]
        return kept, -listed[count][0] if count < len(listed) else 0.0

    chosen = None
    for count in range(sum(map(len, heads)) + 1):
        left = int((budget - count * costs.head) // costs.neuron)
        if budget - count * costs.head < 0:
            break
        kept_heads, cut_off = largest(heads, count)
        kept_neurons, _ = largest(neurons, min(left, sum(map(len, neurons))))
        chosen = Counts(tuple(kept_heads), tuple(kept_neurons))
        residuals = [
            sum(float(value) ** 2 for value in error[kept:]) ** 0.5
            for error, kept in zip(neurons, kept_neurons, strict=True)
        ]
        if cut_off <= 2 * sum(residuals) / layers:
            break
    assert chosen is not None
    return chosen


@pytest.mark.parametrize("weigh", WEIGHED)
@pytest.mark.parametrize("drawn", [falling, rising_at_times])
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 30), st.integers(1, 9), st.floats(0.05, 1.0))
@example(299, 2, 1, 1, 0.5)
def test_the_published_rule_is_the_literal_one(
    drawn: Draw, weigh: Weigh, seed: int, layers: int, head_cost: int, neuron_cost: int, fraction: float
) -> None:
    heads, neurons = drawn(seed, layers, 6), drawn(seed + 1, layers, 15)
    costs = Costs(head_cost, neuron_cost)
    budget = fraction * costs.total(list(map(len, heads)), list(map(len, neurons)))
    if budget < min(head_cost, neuron_cost):
        return
    found = published_counts(heads, neurons, costs, budget, weigh)
    assert found == literal_rule(heads, neurons, costs, budget, weigh)
    assert costs.total(found.heads, found.neurons) <= budget


def test_a_large_error_after_a_small_one_buys_nothing() -> None:
    heads = [torch.tensor(values, dtype=torch.float64) for values in ([5.0, 0.1, 4.0], [1.0, 0.5, 0.2])]
    none = [torch.zeros(2, dtype=torch.float64)] * 2
    # Where only the first head of the first layer stays, the error is 0.1: all of the other layer's are larger.
    assert published_counts(heads, none, Costs(1, 1), 4, weigh=list).heads == (1, 3)


def test_early_layers_weigh_more() -> None:
    ones = [torch.ones(1, dtype=torch.float64)] * 3
    assert [float(error) for error in by_depth(ones)] == pytest.approx([1 + 4**0.5, 1 + 3**0.5, 1 + 2**0.5])


def test_a_log_linear_trend_over_depth_is_divided_out_and_the_unit_stays() -> None:
    shape = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    errors = [shape * 10.0**layer for layer in range(3)]
    for error in by_trend(errors):
        torch.testing.assert_close(error, 10.0 * shape)
    assert all(torch.equal(*pair) for pair in zip(by_trend(errors[:1]), errors[:1], strict=True))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.floats(0.2, 1.0))
def test_an_allocation_is_the_best_of_its_cost_on_convex_errors(seed: int, cost: int, fraction: float) -> None:
    generator = torch.Generator().manual_seed(seed)

    def convex(units: int) -> Tensor:
        saved = torch.rand(units, generator=generator, dtype=torch.float64).sort(descending=True)[0]
        return saved.sum() - torch.cat([saved.new_zeros(1), saved.cumsum(0)])

    heads, neurons = [convex(2), convex(3)], [convex(4), convex(3)]
    costs = Costs(cost, 1)
    budget = fraction * costs.total([5], [7])
    found = allocate(heads, neurons, costs, budget)
    spent = costs.total(found.heads, found.neurons)
    assert spent <= budget

    def error(counts: tuple[int, ...]) -> float:
        return sum(float(values[count]) for values, count in zip((*heads, *neurons), counts, strict=True))

    others = [
        error(counts)
        for counts in itertools.product(range(3), range(4), range(5), range(4))
        if costs.total(counts[:2], counts[2:]) <= spent
    ]
    # Where the last purchase was not cut short, nothing of that cost is better.
    if cost == 1:
        assert error((*found.heads, *found.neurons)) <= min(others) + 1e-12


def test_heads_that_count_more_are_kept_more() -> None:
    errors = [torch.arange(5, -1, -1, dtype=torch.float64)]
    few, many = (allocate(errors, errors, Costs(1, 1), 5, factor) for factor in (0.5, 2.0))
    assert few == Counts((0,), (5,))
    assert many == Counts((5,), (0,))


def test_a_budget_that_keeps_nothing_is_refused() -> None:
    errors = [torch.ones(3, dtype=torch.float64)]
    with pytest.raises(InputError, match=r"keeps nothing at all; the smallest possible is 0\.11"):
        published_counts(errors, errors, Costs(2, 1), 0.9)
    with pytest.raises(InputError, match="keeps nothing"):
        allocate(errors, errors, Costs(2, 1), 0.9)
