"""A family's description is true of its models, and a wrong one is told before anything relies on it."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

import splora
from splora import anatomy
from splora.errors import InputError
from splora.export.cut import cut
from splora.export.plan import Plan
from splora.posttraining.core.probe import check_parts
from tests.families import ONE_OF_EACH


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_descriptions_are_true_and_nothing_is_changed(name: str, dtype: torch.dtype, tiny: Any) -> None:
    model = tiny(name).to(dtype).train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    check_parts(model)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(values, before[key]) for key, values in model.state_dict().items())


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_cut_models_are_known_too(name: str, plan: Plan, tiny: Any) -> None:
    check_parts(cut(tiny(name), plan))


#: Name of a tiny model, what its family's description says wrongly, and what is told.
WRONG = {
    "norms swapped": ("Llama", {"layer_norms": ("post_attention_layernorm", "input_layernorm")}, "put together"),
    "norms last": ("OPT", {"norm_first": False}, "put together"),
    "a part is left out": ("Bert", {"feed_forward": ("intermediate.dense",)}, "put together"),
    "gate and up swapped": (
        "ModernBert",
        {"linears": {**anatomy.FAMILIES["modernbert"].linears}},
        "neuron 19 in its ffn_in are not those that its columns get",
    ),
    "value is not last": ("ModernBert", {"linears": {**anatomy.FAMILIES["modernbert"].linears}}, "head 3 in its value"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_description_is_one_sentence(case: str, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    classes, changes, problem = WRONG[case]
    family = next(family for family in anatomy.FAMILIES.values() if family.classes == classes)
    if "linears" in changes:
        order = list(family.linears)
        first, second = ("ffn_gate", "ffn_in") if "gate" in case else ("query", "value")
        places = {first: order.index(second), second: order.index(first)}
        order.sort(key=lambda role: places.get(role, list(family.linears).index(role)))
        changes = {"linears": {role: family.linears[role] for role in order}}
    monkeypatch.setitem(anatomy.FAMILIES, family.model_type, replace(family, **changes))
    model = tiny(next(name for name in ONE_OF_EACH if name.startswith(classes)))
    before = copy.deepcopy(model.state_dict())
    ids = torch.ones(2, 4, dtype=torch.long)
    with pytest.raises(InputError, match=f"{family.model_type}: layer 0 is not what .*{problem}"):
        splora.prune(model, [{"input_ids": ids, "attention_mask": ids}], "mac=0.5")
    assert all(torch.equal(values, before[key]) for key, values in model.state_dict().items())
