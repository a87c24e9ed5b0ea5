"""Pruning from Python does what the commands do, on models and batches in memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import splora
from splora import anatomy
from splora.errors import InputError
from splora.posttraining.core.budget import Costs


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
