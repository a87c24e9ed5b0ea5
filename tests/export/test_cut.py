"""A cut model computes what the masked one does, is smaller, and leaves the original alone."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from splora import anatomy
from splora.errors import InputError
from splora.export.cut import cut
from splora.export.dense import dense_parameters
from splora.export.plan import Plan

NAMES = anatomy.task_models()
#: Families for which transformers has no other attention.
EAGER_ONLY = ("MPNet", "DebertaV2")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", NAMES)
def test_cut_is_masked(name: str, attention: str, plan: Plan, tiny: Any, outputs: Any, masked: Any) -> None:
    if attention == "sdpa" and name.startswith(EAGER_ONLY):
        attention = "eager"
    model = tiny(name, attn_implementation=attention)
    smaller = cut(model, plan)
    dense = outputs(model)
    masked(model, plan)
    wanted = outputs(model)
    torch.testing.assert_close(outputs(smaller), wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(wanted, dense) == (plan == Plan.dense(model)), "the plan must make a difference"
    assert smaller.config._attn_implementation == attention


def test_rows_of_heads_beside_the_query_go_with_them(plan: Plan, tiny: Any, outputs: Any, masked: Any) -> None:
    model = tiny("DebertaV2ForQuestionAnswering", share_att_key=False)
    smaller = cut(model, plan)
    assert [
        layer.module.attention.self.pos_key_proj.out_features // layer.head_size for layer in anatomy.layers(smaller)
    ] == plan.head_counts
    masked(model, plan)
    torch.testing.assert_close(outputs(smaller), outputs(model), atol=1e-5, rtol=1e-5)


def test_heads_keep_their_own_biases_cut_by_cut(tiny: Any, outputs: Any, masked: Any) -> None:
    model = tiny("MPNetForSequenceClassification")
    everything = tuple(range(20))
    first = Plan(((1, 2, 3), (0, 3), (2,)), (everything,) * 3)
    twice = cut(cut(model, first), Plan(((0, 2), (1,), (0,)), (everything,) * 3))
    masked(model, Plan(((1, 3), (3,), (2,)), (everything,) * 3))
    torch.testing.assert_close(outputs(twice), outputs(model), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_those_of_the_plan(name: str, plan: Plan, tiny: Any) -> None:
    model = tiny(name)
    smaller, dense = cut(model, plan), anatomy.layers(model)[0]
    layers = anatomy.layers(smaller)
    assert [layer.heads for layer in layers] == plan.head_counts
    assert [layer.neurons for layer in layers] == plan.neuron_counts
    assert {layer.head_size for layer in layers} == {6}
    for layer in layers:
        channels, linears = layer.heads * 6, layer.linears
        assert {linears[role].in_features for role in linears if not role.endswith("out") and "output" not in role} == {
            24
        }
        for role, (out, into) in {"query": (channels, 24), "attention_output": (24, channels)}.items():
            assert linears[role].weight.shape == (linears[role].out_features, linears[role].in_features) == (out, into)
        assert linears["ffn_out"].weight.shape == (24, layer.neurons) == (24, linears["ffn_out"].in_features)
    # A head has rows of query, key and value with their biases, and columns; a neuron one or two rows, and a column.
    heads, neurons = 12 - sum(plan.head_counts), 60 - sum(plan.neuron_counts)
    rows = {role: linear.weight.shape[0] * (24 + (linear.bias is not None)) for role, linear in dense.linears.items()}
    head = sum(rows[role] for role in ("query", "key", "value")) // 4 + 6 * 24
    neuron = sum(rows.get(role, 0) for role in ("ffn_gate", "ffn_in")) // 20 + 24
    assert _count(model) - _count(smaller) == heads * head + neurons * neuron
    assert dense_parameters(smaller) == _count(model)
    assert smaller.config.is_heterogeneous
    assert type(smaller.config) is type(model.config)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_cut_is_shared(name: str, mixed: Plan, tiny: Any) -> None:
    model = tiny(name)
    smaller = cut(model, mixed)
    places = anatomy.encoder_linears(model)
    originals = dict(model.named_parameters(remove_duplicate=False))
    shared = 0
    for path, parameter in smaller.named_parameters(remove_duplicate=False):
        assert parameter.device.type == "cpu"
        if path.rpartition(".")[0] in places:
            assert parameter.numel() == 0 or parameter.data_ptr() != originals[path].data_ptr(), path
        else:
            assert parameter is originals[path], path
            shared += 1
    assert shared
    for path, buffer in smaller.named_buffers():
        assert buffer is model.get_buffer(path)


def test_whole_inner_linears_are_shared_and_outer_ones_copied(tiny: Any) -> None:
    model = tiny("BertForSequenceClassification")
    smaller = cut(model, Plan.dense(model))
    for ours, theirs in zip(anatomy.layers(smaller), anatomy.layers(model), strict=True):
        for role in ours.linears:
            outer = role in ("attention_output", "ffn_out")
            for leaf in ("weight", "bias"):
                mine, original = getattr(ours.linears[role], leaf), getattr(theirs.linears[role], leaf)
                assert torch.equal(mine, original)
                assert (mine is original) != outer
                assert (mine.data_ptr() == original.data_ptr()) != outer


@pytest.mark.parametrize("name", ["BertForQuestionAnswering", "OPTForCausalLM"])
def test_the_original_stays_as_it_is(name: str, mixed: Plan, tiny: Any) -> None:
    model = tiny(name)
    before, config = copy.deepcopy(model.state_dict()), model.config.to_dict()
    state = torch.get_rng_state()
    smaller = cut(model, mixed)
    assert torch.equal(torch.get_rng_state(), state), "cutting draws no random numbers"
    with torch.no_grad():
        for layer in anatomy.layers(smaller):
            for role in ("attention_output", "ffn_out"):
                layer.linears[role].weight.mul_(3)
                layer.linears[role].bias.add_(1)
    after = model.state_dict()
    assert all(torch.equal(tensor, after[path]) for path, tensor in before.items())
    assert model.config.to_dict() == config
    assert not model.config.is_heterogeneous


@pytest.mark.parametrize("name", ["RobertaForSequenceClassification", "DistilBertForQuestionAnswering"])
def test_a_cut_model_is_cut_further(name: str, tiny: Any, outputs: Any) -> None:
    model = tiny(name)
    first = Plan(((0, 2, 3), (1, 2), ()), (tuple(range(0, 20, 2)), (4, 9, 11), (0,)))
    then = Plan(((0, 2), (), ()), ((1, 9), (0, 2), ()))
    both = Plan(((0, 3), (), ()), ((2, 18), (4, 11), ()))
    twice, once = cut(cut(model, first), then), cut(model, both)
    assert torch.equal(outputs(twice), outputs(once))
    assert twice.config.to_dict()["per_layer_config"] == once.config.to_dict()["per_layer_config"]


@cache
def _bert() -> Any:
    torch.manual_seed(1)
    settings = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 20}
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(**settings, vocab_size=60, max_position_embeddings=40, initializer_range=0.3)
    ).eval()


def _some(of: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.sets(st.integers(0, of - 1)).map(lambda numbers: tuple(sorted(numbers)))


@settings(deadline=None, max_examples=30)
@given(st.tuples(*[_some(4)] * 3), st.tuples(*[_some(20)] * 3))
def test_any_plan_is_masked(outputs: Any, masked: Any, heads: Any, neurons: Any) -> None:
    plan = Plan(heads, neurons)
    smaller = cut(_bert(), plan)
    hooks = masked(_bert(), plan)
    try:
        torch.testing.assert_close(outputs(smaller), outputs(_bert()), atol=1e-5, rtol=1e-5)
    finally:
        for hook in hooks:
            hook.remove()


def test_dtype_training_mode_and_frozen_parameters_are_kept(mixed: Plan, tiny: Any) -> None:
    model = tiny("BertForSequenceClassification").to(torch.bfloat16).train()
    model.bert.requires_grad_(False)
    smaller = cut(model, mixed)
    assert smaller.training
    assert {parameter.dtype for parameter in smaller.parameters()} == {torch.bfloat16}
    assert {path for path, parameter in smaller.named_parameters() if parameter.requires_grad} == {
        "classifier.weight",
        "classifier.bias",
    }


def test_biases_of_empty_layers_can_be_trained(tiny: Any) -> None:
    smaller = cut(tiny("DistilBertForSequenceClassification"), Plan(((),) * 3, ((),) * 3))
    loss = smaller(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([1])).loss
    loss.backward()
    for layer in anatomy.layers(smaller):
        assert layer.linears["attention_output"].bias.grad.abs().sum() > 0
        assert layer.linears["ffn_out"].bias.grad.abs().sum() > 0


@pytest.mark.parametrize("settings", [{"enable_bias": False}, {"do_layer_norm_before": False}])
def test_variants_of_opt(settings: Any, mixed: Plan, tiny: Any, outputs: Any, masked: Any) -> None:
    model = tiny("OPTForCausalLM", **settings)
    smaller = cut(model, mixed)
    masked(model, mixed)
    torch.testing.assert_close(outputs(smaller), outputs(model), atol=1e-5, rtol=1e-5)


def test_sinusoidal_positions_of_distilbert(mixed: Plan, tiny: Any, outputs: Any, masked: Any) -> None:
    model = tiny("DistilBertForSequenceClassification", sinusoidal_pos_embds=True)
    smaller = cut(model, mixed)
    masked(model, mixed)
    torch.testing.assert_close(outputs(smaller), outputs(model), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"cache_implementation": "static"}, {"num_beams": 2}])
@pytest.mark.parametrize("name", ["OPTForCausalLM", "MistralForCausalLM"])
def test_a_cut_decoder_writes_what_the_masked_one_does(
    name: str, options: Any, plan: Plan, tiny: Any, masked: Any
) -> None:
    model = tiny(name, eos_token_id=None)
    smaller = cut(model, plan)
    masked(model, plan)
    ids = torch.tensor([[1, 1, 7, 8], [5, 9, 11, 30]])
    inputs = {"attention_mask": (ids != 1).long(), "max_new_tokens": 6, "do_sample": False}
    found = smaller.generate(ids, **inputs, **options)
    assert found.shape == (2, 10)
    assert torch.equal(found, model.generate(ids, **inputs, use_cache=False, **_beams(options)))


def test_how_to_generate_is_taken_along_as_a_copy(mixed: Plan, tiny: Any) -> None:
    model = tiny("OPTForCausalLM")
    model.generation_config.max_length = 33
    smaller = cut(model, mixed)
    assert smaller.generation_config.max_length == 33
    smaller.generation_config.max_length = 5
    assert model.generation_config.max_length == 33


def _beams(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name == "num_beams"}


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "OPTForCausalLM"])
def test_attentions_of_every_layer_are_given_out(name: str, mixed: Plan, tiny: Any) -> None:
    smaller = cut(tiny(name, attn_implementation="eager"), mixed)
    found = smaller(input_ids=torch.tensor([[5, 6, 7]]), output_attentions=True, output_hidden_states=True)
    assert [tuple(weights.shape) for weights in found.attentions] == [(1, heads, 3, 3) for heads in mixed.head_counts]
    assert len(found.hidden_states) == 4


def test_what_does_not_fit_is_refused(tiny: Any) -> None:
    model = tiny("BertForSequenceClassification")
    all_heads, all_neurons = Plan.dense(model).heads, Plan.dense(model).neurons
    with pytest.raises(InputError, match="plan has heads of 2 layers; the model has 3 layers"):
        cut(model, Plan(all_heads[:2], all_neurons))
    with pytest.raises(InputError) as refused:
        cut(model, Plan(((4,), (1, 0), (1, 1)), (all_neurons[0], (-1,), tuple(range(21)))))
    assert len(refused.value.problems) == 5
    assert "heads of layer 0 are not ascending numbers from 0 to 3: 4." in refused.value.problems[0]
    assert "neurons of layer 2 are not ascending numbers from 0 to 19: 0, 1, 2, 3, 4, 5, 6, 7, …" in str(refused.value)
    with pytest.raises(InputError, match="GPT2DoubleHeadsModel cannot be cut; models that can are BertForSeq"):
        cut(tiny("GPT2DoubleHeadsModel"), Plan((), ()))


def _count(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
