"""What heads, neurons and blocks are worth: against the pruning that takes them, and against a naive loop."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from splora import anatomy
from splora.posttraining.blocks.method import shares
from splora.posttraining.blocks.surgeon import block_importance
from splora.posttraining.blocks.worth import block_importances
from splora.posttraining.core.budget import Costs
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.sensitivity import output_squares
from splora.posttraining.core.stages import silent
from splora.posttraining.importance import unit_importances
from splora.posttraining.stat.default import prune_default
from splora.posttraining.stat.elimination import Path, worth
from splora.posttraining.stat.options import StatOptions

FP32 = Precision("fp32")
FAMILIES = ["BertForQuestionAnswering", "RobertaForSequenceClassification", "DistilBertForQuestionAnswering"]


def texts(seed: int = 5) -> list[dict[str, Tensor]]:
    """Batches of random tokens, the last rows padded."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(5):
        mask = torch.ones(8, 12, dtype=torch.long)
        mask[6:, 7:] = 0
        batches.append({"input_ids": torch.randint(5, 60, (8, 12), generator=generator), "attention_mask": mask})
    return batches


@given(steps=st.lists(st.floats(0, 9), min_size=1, max_size=9), seed=st.integers(0, 99))
def test_worth_rises_with_the_order_and_sums_up_to_no_less_than_the_errors(steps: list[float], seed: int) -> None:
    errors = torch.tensor([0.0, *steps], dtype=torch.float64).cumsum(0).flip(0)
    order = torch.randperm(len(steps), generator=torch.Generator().manual_seed(seed))
    found = worth(Path(order, errors))
    assert bool((found[order].diff() <= 0).all())
    assert float(found.sum()) >= float(errors[0]) - 1e-9
    # What goes first costs what its step says.
    assert float(found[order[-1]]) == pytest.approx(steps[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_pruning_keeps_what_is_worth_most_of_each_layer(tiny: Any, family: str) -> None:
    model, batches = tiny(family), texts()
    settings: dict[str, Any] = {"first_token_only": "Classification" in family, "precision": FP32, "seed": 3}
    found = unit_importances(model, batches, **settings)
    costs = Costs.of(model, 12)
    layers = anatomy.layers(model)
    budget = 0.5 * costs.total([each.heads for each in layers], [each.neurons for each in layers])
    options = StatOptions(reconstruct=False)
    stages = prune_default(model, batches, costs, budget, options, report=silent, **settings)
    plan = deque(stages, maxlen=1)[0].plan
    gone = 0
    for layer, heads, neurons in zip(found, plan.heads, plan.neurons, strict=True):
        for values, kept in ((layer["heads"], heads), (layer["neurons"], neurons)):
            rest = sorted(set(range(len(values))) - set(kept))
            gone += len(rest)
            if kept and rest:
                assert float(values[list(kept)].min()) >= float(values[rest].max())
    assert gone


@pytest.mark.parametrize("family", [*FAMILIES, "OPTForCausalLM"])
def test_blocks_are_worth_what_inputs_seen_by_hooks_say(tiny: Any, family: str) -> None:
    model, batches = tiny(family), texts()
    seen: dict[str, list[Tensor]] = {}
    rows: list[Tensor] = []

    def hook(name: str) -> Any:
        def keep(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            values = arguments[0].detach()
            seen.setdefault(name, []).append(values.reshape(*rows[-1].shape, -1)[rows[-1]].double())

        return keep

    linears = anatomy.encoder_linears(model)
    handles = [model.get_submodule(name).register_forward_pre_hook(hook(name)) for name in linears]
    with torch.no_grad():
        for batch in batches:
            rows.append(batch["attention_mask"].bool())
            model(**batch)
    for handle in handles:
        handle.remove()
    wanted = [name for name in linears if linears[name].layer == 1]
    found, squares = block_importances(model, batches, dict.fromkeys(wanted, (4, 4)), precision=FP32)
    assert sorted(found) == sorted(squares) == sorted(wanted)
    for name in wanted:
        inputs, weight = torch.cat(seen[name]), model.get_submodule(name).weight.detach().double()
        inputs = inputs - inputs.mean(0)
        weighed = weight * squares[name].sqrt()[:, None]
        expected = block_importance(inputs.T @ inputs / len(inputs), weighed, (4, 4))
        # Two blocks that cost the same to the last bit may go in either order.
        assert float(torch.isclose(found[name], expected, rtol=2e-2).float().mean()) > 0.9
        torch.testing.assert_close(found[name].sum(), expected.sum(), rtol=2e-2, atol=0)


def test_squared_errors_of_outputs_are_weighed_by_what_they_do_to_the_predictions(tiny: Any) -> None:
    """Of two classes nothing is left to chance: p₀ p₁ (∂(z₁ − z₀)/∂y)², by one sequence after another."""
    model, batches = tiny("BertForSequenceClassification"), texts()
    found = output_squares(model, batches, 0, FP32)
    linear = anatomy.layers(model)[1].linears["key"]
    total, count, seen = torch.zeros(linear.out_features, dtype=torch.float64), 0, list[Tensor]()
    handle = linear.register_forward_hook(lambda _, __, output: seen.append(output))
    for batch in batches:
        for row in range(len(batch["input_ids"])):
            logits = model(**{name: values[row : row + 1] for name, values in batch.items()}).logits
            (slope,) = torch.autograd.grad(logits[0, 1] - logits[0, 0], seen.pop())
            kept = slope[0][batch["attention_mask"][row].bool()].double()
            total += float(logits.detach().softmax(-1).prod()) * kept.square().sum(0)
            count += 1
    handle.remove()
    torch.testing.assert_close(found[1, "key"], total / count, rtol=1e-3, atol=1e-8)


def test_one_budget_is_spent_on_the_weights_that_need_it() -> None:
    worth = {"a": torch.tensor([[9.0, 8.0], [7.0, 6.0]]), "b": torch.tensor([[40.0, 1.0]])}
    shapes = {"a": (2, 2), "b": (4, 4)}
    # Of 16 + 32 weights half: what a block of b is worth is told by its 16 weights.
    assert shares(worth, shapes, 0.5, each_weight=False) == {"a": 2, "b": 1}
    assert shares(worth, shapes, 0.5, each_weight=True) == {"a": 2, "b": 1}
    assert shares(worth, dict.fromkeys("ab", (2, 2)), 0.5, each_weight=False) == {"a": 2, "b": 1}
    assert shares(worth, dict.fromkeys("ab", (2, 2)), 0.34, each_weight=False) == {"a": 1, "b": 1}
