"""Whole prunings by interpolative decompositions of tiny models of every family."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from splora import anatomy
from splora.errors import InputError
from splora.export.cut import cut
from splora.export.plan import Plan
from splora.memory import FreeMemory
from splora.posttraining.core import sensitivity
from splora.posttraining.core.budget import Costs
from splora.posttraining.core.calls import record
from splora.posttraining.core.gram import Gram
from splora.posttraining.core.layer_grams import layer_grams, regrouped, thinned
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.sensitivity import divergences, output_metrics
from splora.posttraining.core.stages import Stage
from splora.posttraining.core.sublayers import activated_neurons, attention_context, forward_layer
from splora.posttraining.stat.elimination import eliminate
from splora.posttraining.stat.method import StatOptions, prune_stat
from splora.posttraining.stat.reconstruct import RIDGES, RidgeSystem, reconstruct, squared_error
from tests.families import ONE_OF_EACH

# As OPT-350m: norms after the residual sums, embeddings of another width.
FAMILIES = [*ONE_OF_EACH, "OPTForCausalLM 350m"]
FP32 = Precision("fp32")
EXACT, DEFAULT = StatOptions(exact_paper=True), StatOptions()


def build(tiny: Any, name: str) -> Any:
    """A tiny model of one of `FAMILIES`."""
    kind, _, variant = name.partition(" ")
    return tiny(kind, **({"do_layer_norm_before": False, "word_embed_proj_dim": 16} if variant else {}))


def samples(count: int = 24, tokens: int = 9, seed: int = 3) -> list[dict[str, Tensor]]:
    """Two batches with padding, and labels that nobody may look at."""
    ids = torch.randint(5, 60, (count, tokens), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    ids[1::3, tokens - 2 :], mask[1::3, tokens - 2 :] = 1, 0
    return [
        {"input_ids": part, "attention_mask": kept, "labels": torch.full((len(part),), -5)}
        for part, kept in zip(ids.split(count // 2), mask.split(count // 2), strict=True)
    ]


def run(model: Any, fraction: float, options: StatOptions, **changes: Any) -> list[Stage]:
    settings: dict[str, Any] = {"first_token_only": "Sequence" in type(model).__name__, "precision": FP32}
    batches = changes.pop("batches", samples())
    return list(prune_stat(model, batches, Costs.of(model, 9), fraction, options, **settings | changes))


def own(linear: anatomy.Linear) -> list[Tensor]:
    """Weight, and bias if there is one."""
    return [tensor for tensor in (linear.weight, linear.bias) if tensor is not None]


def repeat_units(model: Any, mixed: bool) -> None:
    """Make the second half of neurons and heads give what the first half gives, scaled or mixed within a head."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "relative_attention_bias" in name:  # of MPNet, by which heads would differ
                parameter.zero_()
        for layer in anatomy.layers(model):
            linears = layer.linears
            half = layer.neurons // 2
            for role in ("ffn_gate", "ffn_in"):
                for parameter in own(linears[role]) if role in linears else ():
                    parameter[half:] = parameter[:half]
            for role in ("query", "key"):
                for parameter in own(linears[role]):
                    parameter[len(parameter) // 2 :] = parameter[: len(parameter) // 2]
            # Values of a head pass through its attention linearly: any mixture of them will do.
            size, channels = layer.rows_of_head("value"), linears["value"].out_features // 2
            mixing = torch.randn(size, size, generator=torch.Generator().manual_seed(1)) if mixed else torch.eye(size)
            for start in range(0, channels, size):
                front, back = slice(start, start + size), slice(channels + start, channels + start + size)
                for parameter in own(linears["value"]):
                    parameter[back] = 0.3 * mixing @ parameter[front]


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_a_combination_of_the_rest_goes_without_a_trace(tiny: Any, outputs: Any, name: str) -> None:
    model = build(tiny, name)
    repeat_units(model, mixed=False)
    wanted = outputs(model)
    # Half of all would do; what is left of the budget buys whatever seems to matter by rounding.
    stages = run(model, 0.57, EXACT)
    assert [stage.name for stage in stages] == ["neurons", "heads"]
    plan = stages[-1].plan
    assert 6 <= sum(plan.head_counts) <= 7
    assert 30 <= sum(plan.neuron_counts) <= 46
    torch.testing.assert_close(outputs(stages[-1].model), wanted, rtol=1e-3, atol=2e-3)
    assert float((outputs(cut(model, plan)) - wanted).norm() / wanted.norm()) > 0.05


@pytest.mark.parametrize("name", FAMILIES)
def test_the_default_sees_combinations_of_channels_too(tiny: Any, outputs: Any, name: str) -> None:
    model = build(tiny, name)
    repeat_units(model, mixed=True)
    wanted = outputs(model)
    stages = run(model, 0.57, DEFAULT)
    assert [stage.name for stage in stages] == ["interpolate", "reconstruct"]
    plan = stages[-1].plan
    assert sum(plan.head_counts) + sum(plan.neuron_counts) < 60
    # Ridges put a little weight on small changes: not exact, but close.
    assert float((outputs(stages[-1].model) - wanted).norm() / wanted.norm()) < 0.02
    assert float((outputs(cut(model, plan)) - wanted).norm() / wanted.norm()) > 0.05


@pytest.mark.parametrize("options", [EXACT, DEFAULT], ids=["exact", "default"])
@pytest.mark.parametrize("name", FAMILIES)
def test_keeping_everything_is_the_identity(tiny: Any, outputs: Any, name: str, options: StatOptions) -> None:
    model = build(tiny, name)
    stages = run(model, 1.0, options)
    assert stages[-1].plan == Plan.dense(model)
    torch.testing.assert_close(outputs(stages[-1].model), outputs(model), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("options", [EXACT, DEFAULT], ids=["exact", "default"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_pruned_model_is_pruned_further_and_the_first_one_is_left_alone(
    tiny: Any, outputs: Any, name: str, options: StatOptions
) -> None:
    model = build(tiny, name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    costs = Costs.of(model, 9)
    once = run(model, 0.6, options)[-1]
    twice = run(once.model, 0.5, options)[-1]
    assert outputs(twice.model).isfinite().all()
    cost = costs.of_plan(Plan.dense(twice.model))
    assert 0.2 * costs.of_plan(Plan.dense(model)) < cost <= 0.3 * costs.of_plan(Plan.dense(model))
    assert Plan.dense(twice.model).head_counts == twice.plan.head_counts
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_layers_without_heads_or_neurons_can_be_pruned_further(tiny: Any, outputs: Any) -> None:
    model = tiny("BertForSequenceClassification")
    thin = cut(model, Plan(((), (0, 2), (1,)), (tuple(range(9)), (), (3, 4))))
    for options in (EXACT, DEFAULT):
        stage = run(thin, 0.6, options)[-1]
        assert stage.plan.heads[0] == ()
        assert stage.plan.neurons[1] == ()
        assert outputs(stage.model).isfinite().all()


def test_the_default_is_closer_to_the_dense_model_than_the_published_method(tiny: Any, outputs: Any) -> None:
    model = tiny("BertForQuestionAnswering")
    wanted = outputs(model)
    errors = {
        options.exact_paper: float((outputs(run(model, 0.4, options, batches=samples(200))[-1].model) - wanted).norm())
        for options in (EXACT, DEFAULT)
    }
    assert errors[False] < errors[True]


def test_few_tokens_are_told_with_the_layer_and_far_too_few_refused(
    tiny: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny("BertForQuestionAnswering")
    with caplog.at_level(logging.WARNING):
        run(model, 0.5, EXACT, batches=samples(2))
    told = "and {} of 2 more layers: {} channels, but the calibration samples hold only 16 tokens"
    assert "layer.0.heads " + told.format("heads", 24) in caplog.text
    assert "layer.0.neurons " + told.format("neurons", 20) in caplog.text
    # Before the first pass and, of heads alone, before the second.
    assert len(caplog.records) == 3
    token = [{key: value[:1, :1] for key, value in samples()[0].items() if key != "labels"}]
    with pytest.raises(InputError, match=r"1 tokens, but layer\.0\.heads has 24 channels; at least 2 are needed"):
        run(model, 0.5, EXACT, batches=token)


@pytest.mark.parametrize("name", FAMILIES)
def test_grams_are_those_of_the_stacked_activations(tiny: Any, name: str) -> None:
    model = build(tiny, name)
    batches = [{key: batch[key] for key in ("input_ids", "attention_mask")} for batch in samples()]
    found = list(layer_grams(model, batches, precision=FP32))
    with torch.no_grad():
        hidden, calls = zip(*(record(model, batch) for batch in batches), strict=True)
        masks = [batch["attention_mask"].bool() for batch in batches]
        for number, (layer, gathered) in enumerate(zip(anatomy.layers(model), found, strict=True)):
            contexts = [attention_context(layer, x, call[number]) for x, call in zip(hidden, calls, strict=True)]
            stacked = torch.cat([x[keep] for x, keep in zip(contexts, masks, strict=True)]).double()
            torch.testing.assert_close(gathered.grams["heads"].matrix, stacked.T @ stacked, rtol=1e-4, atol=1e-3)
            neurons = []
            for x, context, keep in zip(hidden, contexts, masks, strict=True):
                projected = layer.linears["attention_output"](context)
                total = x + projected
                middle = total if layer.norm_first else layer.attention_norm(total)
                neurons.append(activated_neurons(layer, middle)[keep])
            stacked = torch.cat(neurons).double()
            torch.testing.assert_close(gathered.grams["neurons"].matrix, stacked.T @ stacked, rtol=1e-4, atol=1e-3)
            hidden = tuple(forward_layer(layer, x, call[number]) for x, call in zip(hidden, calls, strict=True))


def test_what_is_held_does_not_grow_with_samples(tiny: Any) -> None:
    model = tiny("BertForQuestionAnswering")
    few, many = (
        sum(gram.bytes for found in layer_grams(model, samples(count), precision=FP32) for gram in found.grams.values())
        for count in (24, 96)
    )
    assert few == many == 3 * 8 * (24**2 + 20**2)


@pytest.mark.parametrize("options", [StatOptions(), StatOptions(exact_paper=True)])
def test_freed_memory_is_limited_once_per_layer_and_pass_at_least(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, options: StatOptions
) -> None:
    limited = []
    monkeypatch.setattr(FreeMemory, "limit", lambda _: limited.append(True))
    model = tiny("BertForQuestionAnswering")
    run(model, 0.5, options)
    assert len(limited) >= 2 * len(anatomy.layers(model))


def test_sensitivities_predict_the_divergence_of_small_errors(tiny: Any) -> None:
    model = tiny("BertForSequenceClassification")
    batches = [{key: batch[key] for key in ("input_ids", "attention_mask")} for batch in samples(24)]
    many = [batch for batch in batches for _ in range(60)]
    metric = output_metrics(model, many, 0, FP32)[1]["neurons"]()
    direction = torch.randn(24, generator=torch.Generator().manual_seed(4))
    generator = torch.Generator().manual_seed(5)
    linear = anatomy.layers(model)[1].linears["ffn_out"]
    measured = []
    for batch in many:
        # Signs at random by token: F adds up tokens that do not know of one another.
        signs = 2.0 * torch.randint(0, 2, batch["input_ids"].shape, generator=generator) - 1
        with torch.no_grad():
            wanted = model(**batch).logits
            handle = linear.register_forward_hook(lambda _, __, out, s=signs: out + 0.01 * s[:, :, None] * direction)
            measured.append(divergences([wanted], [model(**batch).logits]))
            handle.remove()
    predicted = 0.5 * 0.01**2 * float(direction.double() @ metric @ direction.double())
    assert float(torch.cat(measured).mean()) == pytest.approx(predicted, rel=0.15)


@pytest.mark.parametrize("kind", ["BertForSequenceClassification", "OPTForCausalLM"])
def test_sensitivities_do_not_depend_on_batches_and_kernels(
    tiny: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(kind)
    batches = [{key: batch[key] for key in ("input_ids", "attention_mask")} for batch in samples(24)]
    if kind.startswith("OPT"):  # directions are drawn batch by batch
        batches = batches[:1]
    wanted = output_metrics(model, batches, 0, FP32)
    monkeypatch.setattr(sensitivity, "SHORT", 0)
    if not kind.startswith("OPT"):
        monkeypatch.setattr(sensitivity, "BACKWARD_TOKENS", 30)
    for one, other in zip(wanted, output_metrics(model, batches, 0, FP32), strict=True):
        for name, kept in one.items():
            metric = kept()
            torch.testing.assert_close(metric, other[name](), rtol=1e-4, atol=1e-6 * float(metric.abs().max()))


@pytest.mark.parametrize("size", [1, 3])
def test_elimination_takes_the_least_each_time_and_tells_its_error(size: int) -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = (
        torch.randn(200, 12, generator=generator, dtype=torch.float64)
        @ torch.randn(12, 12, generator=generator).double()
    )
    outputs = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    gram = inputs.T @ inputs / 200

    def error(kept: list[int]) -> float:
        columns = [group * size + channel for group in kept for channel in range(size)]
        wanted = inputs @ outputs.T
        solution = torch.linalg.pinv(inputs[:, columns]) @ wanted
        return float((inputs[:, columns] @ solution - wanted).square().sum() / 200)

    path = eliminate(gram.clone(), outputs, size, damping=1e-9)
    left = list(range(12 // size))
    for gone in path.order.flip(0).tolist():
        errors = {group: error([other for other in left if other != group]) for group in left}
        assert errors[gone] == pytest.approx(min(errors.values()), rel=1e-3)
        left.remove(gone)
        assert float(path.errors[len(left)]) == pytest.approx(error(left), rel=1e-3)
    assert float(path.errors[-1]) == 0.0


def test_ridge_weights_are_those_of_the_stacked_least_squares() -> None:
    generator = torch.Generator().manual_seed(1)
    inputs, targets, prior = (torch.randn(*shape, generator=generator).double() for shape in ((30, 4), (30, 3), (3, 4)))
    gram = Gram(4, 3)
    for part in torch.arange(30).split(7):
        gram.add(inputs[part] + 1, targets[part])
    weight, bias = RidgeSystem(gram, prior).solve(0.2)
    centred = inputs - inputs.mean(0)
    damping = (0.2 * centred.square().sum(0)).sqrt()
    stacked = torch.cat([centred, torch.diag(damping)])
    right = torch.cat([targets - targets.mean(0), (prior * damping).T])
    wanted = torch.linalg.lstsq(stacked, right).solution.T
    torch.testing.assert_close(weight, wanted)
    torch.testing.assert_close(bias, targets.mean(0) - wanted @ (inputs + 1).mean(0))
    direct = (targets - (inputs + 1) @ weight.T - bias).square().sum()
    assert squared_error(gram, weight, bias) == pytest.approx(float(direct))


@pytest.mark.parametrize("name", FAMILIES)
def test_reconstruction_brings_a_cut_model_closer(tiny: Any, name: str) -> None:
    model = build(tiny, name)
    plan = Plan(((0, 1, 3),) * 3, (tuple(range(15)),) * 3)
    student = cut(model, plan)
    batches = [{key: batch[key] for key in ("input_ids", "attention_mask")} for batch in samples(200)]
    before = [model(**batches[0])[0], student(**batches[0])[0]]
    done = reconstruct(student, model, batches, first_token_only=False, precision=FP32)
    after = student(**batches[0])[0]
    keep = batches[0]["attention_mask"].bool() if after.shape[:2] == batches[0]["input_ids"].shape else ...
    assert (after - before[0])[keep].norm() < 0.9 * (before[1] - before[0])[keep].norm()
    assert set(done.ridges) == {f"layer.{number}.{part}" for number in range(3) for part in ("heads", "neurons")}
    assert set(done.ridges.values()) <= set(RIDGES)


def test_thinning_keeps_every_nth_sequence_over_all_batches() -> None:
    batches = samples(24)
    ids = torch.cat([batch["input_ids"] for batch in batches])
    plain = [{key: batch[key] for key in ("input_ids", "attention_mask")} for batch in batches]
    thin = thinned(plain, tokens=40, sequences=4)
    assert torch.equal(torch.cat([batch["input_ids"] for batch in thin]), ids[::5])
    assert len(thinned(plain, tokens=1000)) == 2


@given(
    shapes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9)), min_size=1, max_size=6), tokens=st.integers(1, 60)
)
def test_regrouping_keeps_every_sequence_in_order_and_adds_only_padding(
    shapes: list[tuple[int, int]], tokens: int
) -> None:
    number = iter(range(1, 1000))
    batches = [
        {
            "input_ids": torch.tensor([[next(number)] * width for _ in range(rows)]),
            "attention_mask": torch.ones(rows, width, dtype=torch.long),
        }
        for rows, width in shapes
    ]
    sequences = [row.tolist() for batch in batches for row in batch["input_ids"]]
    found = list(regrouped(batches, tokens))
    kept = [
        row[keep.bool()].tolist()
        for batch in found
        for row, keep in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    assert kept == sequences
    assert all(batch["input_ids"].numel() <= tokens or len(batch["input_ids"]) == 1 for batch in found)
    assert len(found) <= sum(-(-rows // max(1, tokens // width)) for rows, width in shapes)
    if sum(rows for rows, _ in shapes) * max(width for _, width in shapes) <= tokens:
        assert len(found) == 1


def test_activations_that_hardly_vary_cost_a_warning(tiny: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Means far above deviations: what centring leaves of products in fp32 is rounding."""
    model = tiny("OPTForCausalLM")
    with torch.no_grad():
        for layer in anatomy.layers(model):
            layer.linears["ffn_in"].weight.mul_(1e-4)
            layer.linears["ffn_in"].bias.add_(1e3)
    last = run(model, 0.6, DEFAULT)[-1]
    assert Costs.of(model, 9).of_plan(last.plan) <= 0.6 * Costs.of(model, 9).of_plan(Plan.dense(model))
    assert all(bool(parameter.isfinite().all()) for parameter in last.model.parameters())
    assert "layer.0.neurons: activations hardly vary around their means" in caplog.text
