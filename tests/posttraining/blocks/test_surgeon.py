"""Blocks that can go: against removing each by hand and solving again."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from splora import anatomy
from splora.posttraining.blocks.method import prune_blocks
from splora.posttraining.blocks.surgeon import block_importance, operate
from splora.posttraining.core.precision import Precision


def problem(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated inputs (rows, 12) and a weight (6, 12)."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    return (
        torch.randn(200, 12, generator=generator, dtype=torch.float64) @ mixing,
        torch.randn(6, 12, generator=generator, dtype=torch.float64),
    )


def refit(inputs: Tensor, wanted: Tensor, kept: list[int]) -> Tensor:
    """Least squares over some columns alone, (outputs, 12)."""
    weight = torch.zeros(wanted.shape[1], inputs.shape[1], dtype=torch.float64)
    weight[:, kept] = torch.linalg.lstsq(inputs[:, kept], wanted).solution.T
    return weight


def test_the_first_block_to_go_is_the_one_that_costs_least_when_all_others_are_solved_again() -> None:
    inputs, weight = problem()
    found = block_importance(inputs.T @ inputs, weight, (3, 4))
    for row in range(2):
        rows = weight[3 * row : 3 * row + 3]
        wanted = inputs @ rows.T
        costs = []
        for gone in range(3):
            kept = [column for column in range(12) if column // 4 != gone]
            costs.append(float((wanted - inputs @ refit(inputs, wanted, kept).T).square().sum()))
        assert int(found[row].argmin()) == min(range(3), key=costs.__getitem__)
        assert float(found[row].min()) == pytest.approx(min(costs), rel=1e-2)  # a little damped


@pytest.mark.parametrize("biased", [False, True])
def test_what_stays_is_the_least_squares_solution(biased: bool) -> None:
    inputs, weight = problem(1)
    bias = torch.linspace(-1, 1, 6, dtype=torch.float64)
    inputs = inputs + 3.0 * biased
    wanted = inputs @ weight.T + bias * biased
    means = (inputs.mean(0), wanted.mean(0)) if biased else None
    centred = (inputs - inputs.mean(0), wanted - wanted.mean(0)) if biased else (inputs, wanted)
    matrix, cross = centred[0].T @ centred[0], centred[1].T @ centred[0]
    done = operate(matrix, cross, weight, (3, 4), 3, means=means, ridge=0.0)
    assert int(done.mask.sum()) == 3
    for row in range(2):
        kept = [column for column in range(12) if done.mask[row, column // 4]]
        rows = slice(3 * row, 3 * row + 3)
        torch.testing.assert_close(done.weight[rows], refit(centred[0], centred[1][:, rows], kept))
    if biased:
        error = wanted - inputs @ done.weight.T - done.bias
        torch.testing.assert_close(error.mean(0), torch.zeros(6, dtype=torch.float64))
    assert torch.equal(done.weight != 0, done.mask.repeat_interleave(3, 0).repeat_interleave(4, 1))


@pytest.mark.parametrize("family", ["BertForQuestionAnswering", "DistilBertForQuestionAnswering"])
def test_a_model_loses_blocks_and_stays_near_its_dense_self(tiny: Any, family: str) -> None:
    model = tiny(family)
    generator = torch.Generator().manual_seed(5)
    batches = [
        {"input_ids": torch.randint(5, 60, (8, 12), generator=generator), "attention_mask": torch.ones(8, 12).long()}
        for _ in range(6)
    ]
    pruned = prune_blocks(model, batches, ((6, 6), (4, 4)), 0.5, each_weight=True, precision=Precision("fp32"))
    crude = copy.deepcopy(model)
    with torch.no_grad():
        for layer, own, dense in zip(*map(anatomy.layers, (pruned, crude, model)), strict=True):
            for role, linear in layer.linears.items():
                block = (4, 4) if role.startswith("ffn") else (6, 6)
                zero = linear.weight.unflatten(0, (-1, block[0])).unflatten(2, (-1, block[1])) == 0
                assert zero.all(3).all(1).float().mean() == pytest.approx(0.5, abs=0.03)
                # The same blocks, but nothing makes up for those that went.
                own.linears[role].weight.mul_(linear.weight != 0)
                assert not (dense.linears[role].weight == 0).any()
        inputs = {"input_ids": torch.randint(5, 60, (16, 12), generator=generator)}
        wanted = model(**inputs).start_logits
        errors = [(other(**inputs).start_logits - wanted).square().mean() for other in (pruned, crude)]
    assert errors[0] < 0.8 * errors[1]
