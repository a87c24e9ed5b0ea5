"""Pruning from Python does what the commands do, on models and batches in memory."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import splora
from splora import anatomy
from splora.errors import InputError
from splora.posttraining.core.budget import Costs
from splora.posttraining.core.examples import Examples
from splora.posttraining.core.layer_grams import regrouped


def batches(rows: int = 24, tokens: int = 9) -> list[dict[str, Tensor]]:
    """Two batches with padding."""
    ids = torch.randint(5, 60, (rows, tokens), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    ids[1::3, tokens - 2 :], mask[1::3, tokens - 2 :] = 1, 0
    return [{"input_ids": one, "attention_mask": kept} for one, kept in zip(ids.split(12), mask.split(12), strict=True)]


def same(one: Any, other: Any) -> bool:
    """Whether two models have equal weights."""
    own = other.state_dict()
    return all(torch.equal(tensor, own[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize("method", ["stat", "fisher"])
@pytest.mark.parametrize("name", ["BertForQuestionAnswering", "ElectraForSequenceClassification"])
def test_a_model_becomes_a_smaller_one_and_stays_as_it_is(tiny: Any, outputs: Any, name: str, method: str) -> None:
    model = tiny(name).train()
    before = {path: tensor.clone() for path, tensor in model.state_dict().items()}
    found = splora.prune(model, batches(), "mac=0.6", method)
    assert model.training
    assert all(torch.equal(tensor, before[path]) for path, tensor in model.state_dict().items())
    costs = Costs.of(model, 8)
    kept = costs.of_plan(found.plan) / costs.of_plan(splora.Plan.dense(model))
    assert 0.4 < kept <= 0.62
    assert [layer.heads for layer in anatomy.layers(found.model)] == found.plan.head_counts
    assert outputs(found.model).isfinite().all()
    again = splora.prune(found.model, batches(), "mac=0.4", method)
    assert sum(again.plan.neuron_counts) + sum(again.plan.head_counts) < sum(found.plan.neuron_counts) + sum(
        found.plan.head_counts
    )


def test_decoders_of_grouped_queries_are_pruned(tiny: Any, outputs: Any) -> None:
    found = splora.prune(tiny("LlamaForCausalLM"), batches(), "mac=0.5")
    assert sum(found.plan.head_counts) + sum(found.plan.neuron_counts) < 60
    assert outputs(found.model).isfinite().all()


def test_a_data_set_is_as_good_as_its_batches(tiny: Any) -> None:
    from datasets import Dataset

    model, whole = tiny("BertForSequenceClassification"), batches()
    rows = [
        {"input_ids": ids[mask.bool()].tolist(), "attention_mask": [1] * int(mask.sum())}
        for batch in whole
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    padded = [batch | {"input_ids": batch["input_ids"] * batch["attention_mask"]} for batch in whole]
    torch.manual_seed(0)
    one = splora.prune(model, Dataset.from_list(rows), "mac=0.5", precision="fp32")
    other = splora.prune(model, padded, "mac=0.5", precision="fp32")
    assert one.plan == other.plan


def test_what_it_cannot_do_is_told(tiny: Any) -> None:
    model = tiny("BertForSequenceClassification")
    for told, arguments, options in (
        ("method: 'stat_' is none; allowed are stat, fisher; did you mean 'stat'", ("mac=0.5", "stat_"), {}),
        ("exact_papr: is no option of this method; .* did you mean 'exact_paper'", (), {"exact_papr": True}),
        ("budget is '0.5'; it reads mac=0.5", ("0.5",), {}),
        ("only mac=F is known", ("latency=0.5",), {}),
        ("precision is 'fp64'; allowed are", (), {"precision": "fp64"}),
    ):
        with pytest.raises(InputError, match=told):
            splora.prune(model, batches(), *arguments, **options)
    with pytest.raises(InputError, match="there are none"):
        splora.prune(model, [])
    with pytest.raises(InputError, match="have no attention_mask; they hold input_ids"):
        splora.prune(model, [{"input_ids": torch.ones(2, 3, dtype=torch.long)}])
    smaller = splora.prune(model, batches(), "mac=0.5").model
    with pytest.raises(InputError, match=r"the model keeps 0\.\d+ of its dense self's MACs already"):
        splora.prune(smaller, batches(), "mac=0.9")


def test_every_public_name_is_there() -> None:
    assert all(getattr(splora, name) is not None for name in splora.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'prun'"):
        splora.prun  # noqa: B018


@pytest.mark.parametrize(
    ("name", "adapter"),
    [
        ("BertForQuestionAnswering", None),
        ("DistilBertForSequenceClassification", "none"),
        ("ElectraForSequenceClassification", "lora"),
    ],
)
def test_a_pruned_model_is_healed_towards_the_dense_one(
    tiny: Any, outputs: Any, name: str, adapter: str | None
) -> None:
    dense = tiny(name).train()
    smaller = splora.prune(dense, batches(), "mac=0.5").model
    before = {path: tensor.clone() for path, tensor in (*dense.named_parameters(), *smaller.named_parameters())}
    state = torch.get_rng_state()
    done = splora.heal(smaller, dense, batches(), epochs=8, adapter=adapter, learning_rate=3e-3)
    assert torch.equal(torch.get_rng_state(), state)
    assert (dense.training, done.steps) == (True, 16)
    assert all(parameter.requires_grad for parameter in dense.parameters())
    assert done.after < done.before
    assert all(tensor.equal(before[path]) for path, tensor in smaller.named_parameters())
    assert type(done.model) is type(smaller)
    assert [layer.neurons for layer in anatomy.layers(done.model)] == [
        layer.neurons for layer in anatomy.layers(smaller)
    ]
    again = splora.heal(smaller, dense, batches(), epochs=8, adapter=adapter, learning_rate=3e-3)
    torch.testing.assert_close(outputs(again.model), outputs(done.model), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["OPTForCausalLM", "LlamaForCausalLM"])
def test_language_models_are_healed_towards_every_tokens_predictions(tiny: Any, name: str) -> None:
    dense = tiny(name)
    smaller = splora.prune(dense, batches(), "mac=0.6").model
    done = splora.heal(smaller, dense, batches(), held_out=batches(12), max_steps=30, learning_rate=3e-3)
    assert done.after < done.before
    mask = batches(12)[0]
    found = [
        torch.log_softmax(each(**mask).logits[mask["attention_mask"].bool()].detach(), -1)
        for each in (dense.eval(), done.model)
    ]
    wanted = torch.nn.functional.kl_div(found[1], found[0], reduction="batchmean", log_target=True)
    assert done.after == pytest.approx(float(wanted), rel=1e-4)


def test_what_healing_does_not_better_stays(tiny: Any) -> None:
    dense = tiny("BertForSequenceClassification")
    smaller = splora.prune(dense, batches(), "mac=0.9").model
    done = splora.heal(smaller, dense, batches(), max_steps=2, adapter="none", learning_rate=1.0, warmup_steps=0)
    assert done.before == done.after
    assert same(done.model, smaller)
    for options, told in (
        ({"adapter": "lore"}, "adapter is 'lore'; allowed are .* did you mean 'lora'"),
        ({"epochs": 0}, "epochs is 0; it must be above 0"),
        ({"alpha_hiden": 1.0}, "alpha_hiden: is no column of the sheet; did you mean 'alpha_hidden'"),
        ({"learning_rate": -1.0}, "learning_rate is -1"),
    ):
        with pytest.raises(InputError, match=told):
            splora.heal(smaller, dense, batches(), **options)  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"teacher: puts out logits \(12, 3\) where the model puts out logits \(12, 2\)"
    ):
        splora.heal(smaller, tiny("BertForSequenceClassification", num_labels=3), batches())


@pytest.mark.parametrize("method", ["gptq", "rtn"])
@pytest.mark.parametrize("name", ["BertForSequenceClassification", "LlamaForCausalLM"])
def test_a_model_is_quantized_saved_and_loaded(tiny: Any, outputs: Any, tmp_path: Any, name: str, method: Any) -> None:
    model = tiny(name)
    before = {path: tensor.clone() for path, tensor in model.state_dict().items()}
    calibration = None if method == "rtn" else batches()
    done = splora.quantize(model, calibration, 8, None, method, precision="fp32")
    assert all(torch.equal(tensor, before[path]) for path, tensor in model.state_dict().items())
    assert (outputs(done.model) - outputs(model)).norm() < 0.03 * outputs(model).norm()
    done.save(None, tmp_path / "small")
    assert same(splora.load_quantized(tmp_path / "small"), done.model)
    coarse = splora.quantize(model, calibration, 2, None, method, symmetric=True).model
    assert (outputs(coarse) - outputs(model)).norm() > (outputs(done.model) - outputs(model)).norm()


def test_what_quantization_cannot_do_is_told(tiny: Any) -> None:
    model = tiny("BertForSequenceClassification")
    for told, arguments, options in (
        ("^bits is 5; allowed are 2, 3, 4, 8", (5, None), {}),
        ("^group_size is 12; it must be a multiple of 8, or None for whole rows", (4, 12), {}),
        ("^group_size is 128, but the widest row has", (), {}),
        ("^method is 'gpt'; allowed are gptq, rtn; did you mean 'gptq'", (4, None, "gpt"), {}),
        ("^damping is -1; it must be 0 or larger", (4, None), {"damping": -1}),
        ("dampin: is no option of splora.quantize; there are .* did you mean 'damping'", (), {"dampin": 1}),
    ):
        with pytest.raises(InputError, match=told):
            splora.quantize(model, batches(), *arguments, **options)
    with pytest.raises(InputError, match="batches: are missing; gptq needs calibration examples"):
        splora.quantize(model)


def test_the_example_of_the_docs_runs(tiny: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from splora.tasks.embedded.tokenizer import build_tokenizer

    text = (root / "docs" / "posttraining.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    example = batches()[0]
    names = {"ids": example["input_ids"], "mask": example["attention_mask"], "tokenizer": build_tokenizer()}
    names["model"] = tiny("BertForSequenceClassification")
    monkeypatch.chdir(tmp_path)
    exec(block.replace("bits=4", "bits=4, group_size=8"), names)
    assert [layer.neurons for layer in anatomy.layers(splora.load_pruned("small"))] == names["plan"].neuron_counts
    assert same(splora.load_quantized("small-4-bits"), names["packed"].model)


def test_columns_that_healing_in_memory_does_not_read_are_refused(tiny: Any) -> None:
    dense = tiny("BertForSequenceClassification")
    with pytest.raises(InputError) as refused:
        splora.heal(dense, dense, batches(), num_train_epochs=3.0, pruning_method="topK")
    assert len(refused.value.problems) == 2
    assert all(
        "changes nothing here; columns that do are adapter_learning_rate, alpha_att" in each
        for each in refused.value.problems
    )


def test_a_teacher_s_labels_are_put_into_the_student_s_order(tiny: Any) -> None:
    model = tiny("BertForSequenceClassification", num_labels=3)
    model.config.id2label = {0: "a", 1: "b", 2: "c"}
    teacher = copy.deepcopy(model)
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        for parameter in teacher.classifier.parameters():
            parameter.copy_(parameter[order])
    teacher.config.id2label = {number: model.config.id2label[int(of)] for number, of in enumerate(order)}
    assert splora.heal(model, teacher, batches(), max_steps=1).before == pytest.approx(0, abs=1e-6)


def test_what_pads_labels_counts_nowhere() -> None:
    rows = [{"input_ids": [5, 6, 7], "labels": [1, 0, 1]}, {"input_ids": [5], "labels": [1]}]
    (batch,) = Examples([{**row, "attention_mask": [1] * len(row["labels"])} for row in rows])
    assert batch["labels"].tolist() == [[1, 0, 1], [1, -100, -100]]
    wider = {name: torch.nn.functional.pad(values, (0, 1)) for name, values in batch.items()}
    (joined,) = regrouped([batch, wider], 1000)
    assert joined["labels"][1].tolist() == [1, -100, -100, -100]
    sentences = [{**each, "labels": torch.tensor([0, 1])} for each in (batch, wider)]
    assert next(iter(regrouped(sentences, 1000)))["labels"].tolist() == [0, 1, 0, 1]


def test_labels_that_are_asked_for_and_not_there_are_told(tiny: Any) -> None:
    with pytest.raises(InputError, match="data's labels is asked for, but examples have none"):
        splora.prune(tiny("BertForSequenceClassification"), batches(), "mac=0.5", "fisher", labels="data")


def test_what_cannot_be_cut_is_told_at_once(tiny: Any) -> None:
    with pytest.raises(InputError, match="BertForMaskedLM cannot be cut; models that can are BertForSequenceClass"):
        splora.prune(tiny("BertForMaskedLM"), batches(), "mac=0.5")
