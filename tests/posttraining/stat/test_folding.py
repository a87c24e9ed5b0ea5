"""Corrected output projections against least squares on the stacked activations, and what is said of dependence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from splora import anatomy
from splora.export.cut import cut
from splora.export.plan import Plan
from splora.posttraining.core.gram import Gram
from splora.posttraining.stat.folding import Folded, fold, plan_of

KIND = "BertForSequenceClassification"
CHANNELS = {"heads": 24, "neurons": 20}
PLAN = Plan(((0, 1, 3), (0, 1, 2, 3), (2,)), (tuple(range(15)), tuple(range(20)), (3, 4)))


def activations(seed: int = 0) -> list[dict[str, Tensor]]:
    """Of each of three layers random rows by part, correlated and with means, float64."""
    generator = torch.Generator().manual_seed(seed)

    def rows(columns: int) -> Tensor:
        mixing = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
        return torch.randn(200, columns, generator=generator, dtype=torch.float64) @ mixing + 1

    return [{part: rows(columns) for part, columns in CHANNELS.items()} for _ in range(3)]


def grams(stacked: list[dict[str, Tensor]]) -> list[dict[str, Gram]]:
    found = []
    for by_part in stacked:
        found.append({part: Gram(rows.shape[1]) for part, rows in by_part.items()})
        for part, rows in by_part.items():
            found[-1][part].add(rows)
    return found


def test_weights_and_biases_are_those_of_least_squares_with_an_intercept(tiny: Any) -> None:
    _compare(tiny(KIND), bias=True)


def test_without_biases_weights_are_those_of_least_squares_through_zero(tiny: Any) -> None:
    _compare(tiny(KIND), bias=False)


def _compare(model: Any, bias: bool) -> None:
    """Fold without damping, and solve for all outputs of the dense projection on the kept inputs."""
    stacked = activations()
    folded = fold(model, PLAN, grams(stacked), bias=bias)
    assert folded.dependent == {}
    assert folded.notes == {}
    for number, (layer, thinner) in enumerate(zip(anatomy.layers(model), anatomy.layers(folded.model), strict=True)):
        for part, role, size in (("heads", "attention_output", layer.head_size), ("neurons", "ffn_out", 1)):
            kept = [
                unit * size + channel
                for unit in (PLAN.heads if part == "heads" else PLAN.neurons)[number]
                for channel in range(size)
            ]
            dense, ours, rows = layer.linears[role], thinner.linears[role], stacked[number][part]
            wanted = rows @ dense.weight.detach().double().T
            left = rows[:, kept]
            if bias:
                left = torch.cat([left, torch.ones(len(rows), 1, dtype=rows.dtype)], 1)
            solution = torch.linalg.lstsq(left, wanted).solution
            torch.testing.assert_close(ours.weight.detach().double(), solution[: len(kept)].T, rtol=1e-4, atol=1e-5)
            moved = (ours.bias - dense.bias).detach().double()
            expected = solution[-1] if bias else torch.zeros_like(moved)
            torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-5)


def test_parts_without_activations_are_cut_and_nothing_else(tiny: Any) -> None:
    model = tiny(KIND)
    folded = fold(model, PLAN, [{"neurons": by_part["neurons"]} for by_part in grams(activations())], bias=True)
    plain = cut(model, PLAN)
    for one, other in zip(anatomy.layers(folded.model), anatomy.layers(plain), strict=True):
        for role in ("query", "value", "attention_output", "ffn_in"):
            assert torch.equal(one.linears[role].weight, other.linears[role].weight)
            assert torch.equal(one.linears[role].bias, other.linears[role].bias)


def duplicated(model: Any, damping: float, bias: bool = False) -> Folded:
    """Folded where the second ten neurons of the second layer are the first ten, and five of these go."""
    stacked = activations()
    stacked[1]["neurons"][:, 10:] = 0.5 * stacked[1]["neurons"][:, :10]
    plan = plan_of([torch.arange(4)] * 3, [torch.arange(20), torch.arange(15), torch.arange(18)])
    return fold(model, plan, grams(stacked), bias=bias, damping=damping)


@pytest.mark.parametrize("bias", [False, True])
def test_kept_channels_that_depend_on_one_another_are_named(tiny: Any, bias: bool) -> None:
    folded = duplicated(tiny(KIND), 0.0, bias)
    assert folded.dependent == {"layer.1.neurons": (10, 15)}
    assert folded.notes == {"dependent_channels": {"layer.1.neurons": "10 of 15 kept channels are independent"}}
    assert all(parameter.isfinite().all() for parameter in folded.model.parameters())


def test_damping_makes_systems_regular_but_for_channels_that_are_always_zero(tiny: Any) -> None:
    model = tiny(KIND)
    assert duplicated(model, 1e-3).dependent == {}
    stacked = activations()
    stacked[2]["neurons"][:, [0, 7]] = 0.0
    plan = plan_of([torch.arange(4)] * 3, [torch.arange(20), torch.arange(20), torch.arange(18)])
    assert fold(model, plan, grams(stacked), bias=False, damping=1e-3).dependent == {"layer.2.neurons": (16, 18)}
