"""Each part of the default method on and off: what changes, and that nothing else does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from splora import anatomy
from splora.export.cut import cut
from splora.export.plan import Plan
from splora.posttraining.core.budget import Costs
from splora.posttraining.core.calibration import BATCH_TOKENS
from splora.posttraining.core.layer_grams import layer_grams, regrouped
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.sensitivity import Metrics, divergences, logits
from splora.posttraining.stat import default as stat_default
from splora.posttraining.stat.budget import allocate
from splora.posttraining.stat.default import DAMPING
from splora.posttraining.stat.elimination import eliminate
from splora.posttraining.stat.folding import fold, plan_of
from splora.posttraining.stat.method import StatOptions, prune_stat
from splora.posttraining.stat.options import HEAD_FACTORS
from splora.scratch import Held

FP32 = Precision("fp32")
FIRST = StatOptions(reconstruct=False)
FACTORS = (1.0, 0.2, 5.0)
Weights = dict[str, Tensor]


@pytest.fixture(scope="module", params=["BertForSequenceClassification", "OPTForCausalLM"])
def model(request: pytest.FixtureRequest, tiny: Any) -> Any:
    return tiny(request.param)


@pytest.fixture(scope="module")
def batches() -> list[dict[str, Tensor]]:
    ids = torch.randint(5, 60, (60, 9), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    ids[1::3, 7:], mask[1::3, 7:] = 1, 0
    return [
        {"input_ids": part, "attention_mask": kept} for part, kept in zip(ids.split(20), mask.split(20), strict=True)
    ]


def run(
    model: Any, batches: Any, options: StatOptions, fraction: float = 0.5
) -> Iterator[tuple[str, Plan, Weights, dict[str, Any]]]:
    """Of each stage its name, plan, weights as they are then, and notes."""
    costs, first = Costs.of(model, 9), "Sequence" in type(model).__name__
    for stage in prune_stat(model, batches, costs, fraction, options, first_token_only=first, precision=FP32):
        assert Plan.dense(stage.model).head_counts == stage.plan.head_counts
        assert Plan.dense(stage.model).neuron_counts == stage.plan.neuron_counts
        yield (
            stage.name,
            stage.plan,
            {name: value.clone() for name, value in stage.model.state_dict().items()},
            stage.notes,
        )


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def differing(one: Weights, other: Weights) -> set[str]:
    """Names of weights that differ."""
    assert one.keys() == other.keys()
    return {name for name, value in one.items() if not torch.equal(value, other[name])}


def projections(model: Any, kind: str, plan: Plan | None = None) -> set[str]:
    """Names of the weights or biases of all output projections, or of those of which a plan leaves something out."""
    dense, found = Plan.dense(model), set()
    for number, layer in enumerate(anatomy.layers(model)):
        for part, role in (("heads", "attention_output"), ("neurons", "ffn_out")):
            if plan is None or getattr(plan, part)[number] != getattr(dense, part)[number]:
                found.add(layer.linears[role])
    return {f"{name}.{kind}" for name, module in model.named_modules() if module in found}


def literal(model: Any, batches: Any, bias: bool) -> tuple[Plan, Weights]:
    """The first stage without sensitivities, from its parts."""
    first = "Sequence" in type(model).__name__
    found = list(layer_grams(model, batches, first_token_only=first, precision=FP32))
    paths: dict[str, list[Any]] = {"heads": [], "neurons": []}
    for gathered in found:
        for part, role, size in (("heads", "attention_output", gathered.layer.head_size), ("neurons", "ffn_out", 1)):
            gram = gathered.grams[part]
            means = gram.sum / gram.rows
            products = gram.matrix / gram.rows - (torch.outer(means, means) if bias else 0)
            paths[part].append(eliminate(products, gathered.layer.linears[role].weight.detach().double(), size))
    costs = Costs.of(model, 9)
    errors = ([path.errors for path in paths[part]] for part in ("heads", "neurons"))
    counts = allocate(*errors, costs, 0.5 * costs.of_plan(Plan.dense(model)))
    heads = [path.order[:count] for path, count in zip(paths["heads"], counts.heads, strict=True)]
    neurons = [path.order[:count] for path, count in zip(paths["neurons"], counts.neurons, strict=True)]
    plan = plan_of(heads, neurons)
    grams = [{name: gram.compact() for name, gram in gathered.grams.items()} for gathered in found]
    return plan, fold(model, plan, grams, bias=bias, damping=DAMPING).model.state_dict()


@pytest.mark.parametrize("bias", [True, False])
def test_without_sensitivities_errors_are_those_of_outputs_and_nothing_goes_backward(
    model: Any, batches: Any, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.autograd, "grad", lambda *_: pytest.fail("a backward pass was made"))
    ((name, plan, weights, notes),) = run(model, batches, replace(FIRST, sensitivities=False, bias=bias))
    wanted_plan, wanted = literal(model, batches, bias)
    assert (name, plan, notes) == ("interpolate", wanted_plan, {})
    assert same(weights, wanted)


def test_sensitivities_decide_what_stays_and_those_of_the_identity_are_none(
    model: Any, batches: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((_, felt, _, _),) = run(model, batches, FIRST)
    ((_, plain, weights, _),) = run(model, batches, replace(FIRST, sensitivities=False))
    assert felt != plain

    def identity(*_: Any) -> Metrics:
        return [{part: Held(torch.eye(24, dtype=torch.float64)) for part in ("heads", "neurons")} for _ in range(3)]

    monkeypatch.setattr(stat_default, "output_metrics", identity)
    ((_, unfelt, others, _),) = run(model, batches, FIRST)
    assert unfelt == plain
    assert same(others, weights)


def test_without_biases_only_weights_of_output_projections_are_corrected(model: Any, batches: Any) -> None:
    for bias in (True, False):
        ((_, plan, found, _),) = run(model, batches, replace(FIRST, bias=bias))
        wanted = projections(model, "weight", plan) | (projections(model, "bias", plan) if bias else set())
        assert len(wanted) >= 5
        assert differing(found, cut(model, plan).state_dict()) == wanted


def test_without_reconstruction_the_first_stage_is_the_result(model: Any, batches: Any) -> None:
    (alone,) = run(model, batches, FIRST)
    first, second = run(model, batches, StatOptions())
    assert (alone[0], second[0]) == ("interpolate", "reconstruct")
    assert alone[1] == first[1] == second[1]
    assert same(alone[2], first[2])
    assert alone[3] == first[3] == {}
    assert differing(first[2], second[2]) == projections(model, "weight") | projections(model, "bias")


def test_the_published_method_has_none_of_these_switches(model: Any, batches: Any) -> None:
    exact = StatOptions(exact_paper=True)
    changed = replace(exact, sensitivities=False, bias=False, reconstruct=False, head_factors=FACTORS)
    for one, other in zip(run(model, batches, exact), run(model, batches, changed), strict=True):
        assert one[:2] == other[:2]
        assert same(one[2], other[2])


def test_of_candidates_the_one_of_the_least_divergence_is_taken_if_it_stands_out(model: Any, batches: Any) -> None:
    """Measured here by hand, on all samples, of which there are too few to leave any out."""
    costs, first = Costs.of(model, 9), "Sequence" in type(model).__name__
    sample = list(regrouped(batches, BATCH_TOKENS))
    expected, values, alone = logits(model, sample, FP32), [], []
    for factor in FACTORS:
        options = replace(FIRST, head_factors=(factor,))
        (stage,) = prune_stat(model, batches, costs, 0.5, options, first_token_only=first, precision=FP32)
        alone.append(stage)
        values.append(divergences(expected, logits(stage.model, sample, FP32)))
    assert len({stage.plan for stage in alone}) > 1
    best = 0
    for number in (1, 2):
        gain = values[best] - values[number]
        if gain.mean() > gain.std() / len(gain) ** 0.5:
            best = number
    ((_, plan, weights, notes),) = run(model, batches, replace(FIRST, head_factors=FACTORS))
    assert plan == alone[best].plan
    assert same(weights, alone[best].model.state_dict())
    measured = notes["divergence_by_head_factor"]
    assert list(measured) == ["1", "0.2", "5"]
    assert list(measured.values()) == pytest.approx([float(one.mean()) for one in values], rel=1e-4)


@pytest.mark.parametrize(
    ("measured", "chosen"),
    [
        ([[3, 3.1, 2.9], [2, 2.1, 1.9], [1, 1.1, 0.9]], 2),
        ([[3, 3.1, 2.9], [1, 1.1, 0.9], [2, 2.1, 1.9]], 1),
        # Less on average, but for one prediction alone.
        ([[3, 3, 3], [3.5, 3.5, 1], [4, 4, 4]], 0),
        ([[1, 1, 1], [1, 1, 1], [1, 1, 1]], 0),
    ],
)
def test_the_model_is_that_of_the_candidate_taken(
    model: Any, batches: Any, measured: Sequence[Sequence[float]], chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [next(run(model, batches, replace(FIRST, head_factors=(factor,)))) for factor in FACTORS]
    assert alone[0][1] not in (alone[1][1], alone[2][1])
    left = [torch.tensor(values, dtype=torch.float64) for values in measured]
    monkeypatch.setattr(stat_default, "divergences", lambda *_: left.pop())  # the usual one is measured last
    # The model is not made anew for the candidate that it was made for last.
    made: list[Plan] = []

    def counted(model: Any, plan: Plan, *rest: Any, **named: Any) -> Any:
        made.append(plan)
        return fold(model, plan, *rest, **named)

    monkeypatch.setattr(stat_default, "fold", counted)
    ((_, plan, weights, notes),) = run(model, batches, replace(FIRST, head_factors=FACTORS))
    assert plan == alone[chosen][1]
    assert same(weights, alone[chosen][2])
    assert made == [alone[number][1] for number in (2, 1, 0, *([chosen] if chosen else []))]
    means = {f"{factor:g}": sum(values) / 3 for factor, values in zip(FACTORS, measured, strict=True)}
    assert notes["divergence_by_head_factor"] == pytest.approx(means)


def test_one_candidate_is_not_measured(model: Any, batches: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(HEAD_FACTORS) == 1
    monkeypatch.setattr(stat_default, "logits", lambda *_: pytest.fail("measured"))
    ((_, _, _, notes),) = run(model, batches, FIRST)
    assert notes == {}


@pytest.mark.parametrize("kind", ["BertForQuestionAnswering", "OPTForCausalLM"])
def test_the_published_stages_tell_what_depends_and_the_default_has_no_such_thing(
    tiny: Any, batches: Any, kind: str
) -> None:
    model = tiny(kind)
    with torch.no_grad():
        for layer in anatomy.layers(model):
            linear = layer.linears["ffn_in"]
            linear.weight[10:], linear.bias[10:] = linear.weight[:10], linear.bias[:10]
    neurons, heads = run(model, batches, StatOptions(exact_paper=True), 0.95)
    told = {
        f"layer.{number}.neurons": f"10 of {kept} kept channels are independent"
        for number, kept in enumerate(neurons[1].neuron_counts)
        if 10 < kept < 20  # where all stay there is nothing to solve
    }
    assert told
    assert neurons[3] == {"dependent_channels": told}
    assert heads[3] == {}
    ((_, plan, _, notes),) = run(model, batches, FIRST, 0.95)
    assert any(10 < kept < 20 for kept in plan.neuron_counts)
    assert notes == {}
