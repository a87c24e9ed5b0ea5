"""Scaling factors against SciPy's LSMR on the stacked system, and what folding them in does to a model."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import lsmr
from torch import Tensor

from splora import anatomy
from splora.export.cut import cut
from splora.export.plan import Plan
from splora.posttraining.core.calls import record
from splora.posttraining.core.precision import Precision
from splora.posttraining.core.states import STORAGES, States
from splora.posttraining.core.sublayers import forward_layer
from splora.posttraining.fisher.least_squares import NormalEquations, scales
from splora.posttraining.fisher.rescale import rescale
from tests.families import ONE_OF_EACH

FAMILIES = ONE_OF_EACH


def inputs(lengths: tuple[int, ...] = (9, 6, 2)) -> dict[str, Tensor]:
    ids = torch.randint(5, 60, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    for row, length in enumerate(lengths):
        ids[row, length:], mask[row, length:] = 1, 0
    return {"input_ids": ids, "attention_mask": mask}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 3), st.integers(1, 7), st.floats(0.1, 3))
def test_factors_are_those_of_lsmr_on_the_stacked_system(
    seed: int, masks: int, size: int, tokens: int, damping: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    activations = torch.randn(tokens, masks * size, generator=generator)
    weight, target = torch.randn(4, masks * size, generator=generator), torch.randn(tokens, 4, generator=generator)
    equations = NormalEquations(weight, size)
    for part in torch.arange(tokens).split(3):
        equations.add(activations[part], target[part])
    columns = [
        (activations[:, chosen] @ weight[:, chosen].T).flatten().double()
        for chosen in torch.arange(masks * size).split(size)
    ]
    stacked = torch.stack(columns, 1)
    residual = target.flatten().double() - stacked.sum(1)
    wanted = lsmr(stacked.numpy(), residual.numpy(), damp=damping, atol=1e-12, btol=1e-12, maxiter=1000)[0]
    found = scales(*equations.system(), damping)
    torch.testing.assert_close(found, 1 + torch.from_numpy(wanted), rtol=1e-3, atol=1e-4)


def test_with_a_bias_the_system_has_a_column_per_hidden_channel_more() -> None:
    generator = torch.Generator().manual_seed(2)
    activations, weight = torch.randn(11, 3, generator=generator), torch.randn(4, 3, generator=generator)
    target = torch.randn(11, 4, generator=generator) + 3
    equations = NormalEquations(weight, 1, with_bias=True)
    for part in torch.arange(11).split(4):
        equations.add(activations[part], target[part])
    factors = scales(*equations.system(), damping=1e-6)
    columns = torch.stack([torch.outer(activations[:, j], weight[:, j]).flatten() for j in range(3)], 1)
    constants = torch.eye(4).repeat(11, 1)
    wanted = torch.linalg.lstsq(torch.cat([columns, constants], 1).double(), target.flatten().double()).solution
    torch.testing.assert_close(factors, wanted[:3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(equations.bias(factors), wanted[3:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_sublayers_put_together_are_the_models_own_layers(tiny: Any, name: str) -> None:
    model, batch = tiny(name), inputs()
    with torch.no_grad():
        hidden, calls = record(model, batch)
        for layer, call in zip(anatomy.layers(model), calls, strict=True):
            hidden = forward_layer(layer, hidden, call)
        wanted = model(**batch, output_hidden_states=True).hidden_states[-1]
        for path in ("model.decoder.final_layer_norm", "model.norm", "model.final_norm", "transformer.ln_f"):
            with suppress(AttributeError):
                hidden = model.get_submodule(path)(hidden)
    keep = batch["attention_mask"].bool()
    torch.testing.assert_close(hidden[keep], wanted[keep], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_that_lost_nothing_needs_no_factors(tiny: Any, name: str) -> None:
    model = tiny(name)
    same = cut(model, Plan.dense(model))
    done = rescale(same, model, [inputs()], first_token_only=False)
    assert len(done.factors) == 6
    for factors in done.factors.values():
        torch.testing.assert_close(factors, torch.ones_like(factors), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_lost_scale_is_found_again(tiny: Any, name: str) -> None:
    """A head and two neurons were scaled down: factors near the inverse bring back the dense model's outputs."""
    model = tiny(name)
    hurt = cut(model, Plan.dense(model))
    layer = anatomy.layers(hurt)[1]
    with torch.no_grad():
        layer.linears["attention_output"].weight[:, 6:12] *= 0.5
        layer.linears["ffn_out"].weight[:, [3, 8]] *= 0.25
    done = rescale(hurt, model, [inputs((9, 9, 9, 9))], first_token_only=False, damping=1e-3)
    assert float(done.factors["layer.1.heads"][1]) == pytest.approx(2, abs=0.05)
    assert done.factors["layer.1.neurons"][[3, 8]].tolist() == pytest.approx([4, 4], abs=0.2)


def test_a_bias_alone_makes_up_for_neurons_that_are_constant(tiny: Any) -> None:
    """Neurons whose inputs do not reach them put out a constant; without them only the bias has to change."""
    model = tiny("BertForSequenceClassification")
    with torch.no_grad():
        anatomy.layers(model)[2].linears["ffn_in"].weight[10:] = 0
    plan = Plan((tuple(range(4)),) * 3, (tuple(range(20)), tuple(range(20)), tuple(range(10))))
    batch = inputs((9, 9, 9, 9))
    found = {}
    for correct in (True, False):
        smaller = cut(model, plan)
        rescale(smaller, model, [batch], first_token_only=False, correct_bias=correct)
        with torch.no_grad():
            found[correct] = float((smaller(**batch).logits - model(**batch).logits).abs().max())
    assert found[True] < 1e-3 < found[False]


def test_rescaling_brings_a_pruned_layer_nearer_to_its_teacher(tiny: Any) -> None:
    model = tiny("BertForSequenceClassification")
    plan = Plan(((0, 2), (0, 1, 3), (1, 2)), (tuple(range(10)), tuple(range(5, 17)), (0, 3, 5, 9, 11)))
    batch = inputs((9, 8, 7, 9, 9))
    before, after = cut(model, plan), cut(model, plan)
    done = rescale(after, model, [batch], first_token_only=False)
    assert not done.skipped
    keep = batch["attention_mask"].bool()

    def error(student: Any) -> float:
        with torch.no_grad():
            first, reference = anatomy.layers(student)[0], anatomy.layers(model)[0]
            hidden, (call, *_) = record(model, batch)
            return float(
                (forward_layer(first, hidden, call) - forward_layer(reference, hidden, call))[keep].square().sum()
            )

    assert error(after) < error(before)


def test_padding_and_later_tokens_are_not_counted(tiny: Any) -> None:
    """Other words in the padding change nothing; in the last layer of a classifier only first tokens count."""
    model = tiny("BertForSequenceClassification")
    plan = Plan(((0, 1),) * 3, (tuple(range(9)),) * 3)
    batch = inputs()
    other = {**batch, "input_ids": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, 33)}
    found = [rescale(cut(model, plan), model, [one], first_token_only=True).factors for one in (batch, other)]
    for name, factors in found[0].items():
        torch.testing.assert_close(factors, found[1][name])
    every = rescale(cut(model, plan), model, [batch], first_token_only=False).factors
    torch.testing.assert_close(every["layer.1.neurons"], found[0]["layer.1.neurons"])
    assert not torch.allclose(every["layer.2.neurons"], found[0]["layer.2.neurons"])


def hurt_neuron(model: Any, by: float) -> Any:
    """A copy of the model in which one neuron of the first layer puts out less."""
    hurt = cut(model, Plan.dense(model))
    with torch.no_grad():
        anatomy.layers(hurt)[0].linears["ffn_out"].weight[:, 4] *= by
    return hurt


def test_a_layer_out_of_range_is_damped_more(tiny: Any) -> None:
    model = tiny("BertForSequenceClassification")
    hurt = hurt_neuron(model, 1e-2)
    done = rescale(hurt, model, [inputs((9, 9, 9, 9))], first_token_only=False, damping=1e-2)
    assert not done.skipped
    assert 1 < float(done.factors["layer.0.neurons"][4]) <= 10


def test_a_layer_that_stays_out_of_range_is_skipped_and_later_ones_are_not(tiny: Any) -> None:
    model = tiny("BertForSequenceClassification")
    hurt = hurt_neuron(model, 1e-3)
    kept = anatomy.layers(hurt)[0].linears["ffn_out"].weight.clone()
    done = rescale(hurt, model, [inputs((9, 9, 9, 9))], first_token_only=False, damping=1e-9)
    assert list(done.skipped) == ["layer.0.neurons"]
    assert done.skipped["layer.0.neurons"] > 10
    assert torch.equal(anatomy.layers(hurt)[0].linears["ffn_out"].weight, kept)
    assert {"layer.1.heads", "layer.1.neurons", "layer.2.neurons"} <= set(done.factors)


def test_layers_without_heads_or_neurons_are_left_alone(tiny: Any, mixed: Plan) -> None:
    model = tiny("DistilBertForSequenceClassification")
    done = rescale(cut(model, mixed), model, [inputs()], first_token_only=True)
    assert "layer.1.heads" not in done.factors | done.skipped
    assert "layer.2.neurons" not in done.factors | done.skipped


@pytest.mark.parametrize("storage", STORAGES)
def test_hidden_states_are_kept_as_asked(tiny: Any, storage: Any) -> None:
    model, batch = tiny("BertForSequenceClassification"), inputs()
    states = States(model, [batch, batch], storage)
    assert len(states) == 2
    assert states.bytes == 2 * 3 * 9 * 24 * (2 if storage == "bf16" else 4)
    new = torch.randn(3, 9, 24)
    states[1] = new
    torch.testing.assert_close(states[1], new, rtol=1e-2 if storage == "bf16" else 0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(states[0], record(model, batch)[0], rtol=1e-2 if storage == "bf16" else 0, atol=1e-7)


def test_factors_on_disk_are_those_in_memory(tiny: Any) -> None:
    model, plan = tiny("BertForQuestionAnswering"), Plan(((0, 1),) * 3, (tuple(range(9)),) * 3)
    found = [
        rescale(cut(model, plan), model, [inputs()], first_token_only=False, storage=storage).factors
        for storage in ("fp32", "disk")
    ]
    for name, factors in found[0].items():
        torch.testing.assert_close(factors, found[1][name], rtol=0, atol=0)


def test_products_in_bf16_leave_the_setting_as_it_was() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    precision, cpu = Precision("bf16"), torch.device("cpu")
    with precision.forward(cpu), precision.products(cpu):
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
        # Within a forward pass too, sums are those of fp32 matrices.
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert torch.backends.mkldnn.matmul.fp32_precision == before
