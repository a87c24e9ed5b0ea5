"""PEFT knows both methods, and a PEFT that keeps its methods elsewhere is reported as such."""

from __future__ import annotations

from typing import Any

import peft.mapping
import pytest

from splora.adapters import SPLoPAConfig, SPLoPAModel, SPLoRAConfig, SPLoRAModel
from splora.adapters.registry import register
from splora.errors import InputError


def test_both_methods_are_found_by_name() -> None:
    assert peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING["SPLOPA"] is SPLoPAModel
    assert peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING["SPLORA"] is SPLoRAConfig
    assert peft.mapping.PEFT_TYPE_TO_PREFIX_MAPPING["SPLORA"] == "splora_"


def test_registering_again_changes_nothing() -> None:
    before = dict(peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING)
    register("SPLOPA", SPLoPAConfig, SPLoPAModel)
    assert before == peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING


@pytest.mark.parametrize("value", [None, []])
@pytest.mark.parametrize(
    "registry", ["PEFT_TYPE_TO_CONFIG_MAPPING", "PEFT_TYPE_TO_TUNER_MAPPING", "PEFT_TYPE_TO_PREFIX_MAPPING"]
)
def test_a_changed_peft_is_named(monkeypatch: pytest.MonkeyPatch, registry: str, value: Any) -> None:
    if value is None:
        monkeypatch.delattr(peft.mapping, registry)
    else:
        monkeypatch.setattr(peft.mapping, registry, value)
    with pytest.raises(InputError, match=rf"PEFT {peft.__version__} has no dictionary peft\.mapping\.{registry}"):
        register("SPLOPA", SPLoPAConfig, SPLoPAModel)


def test_a_name_that_is_taken_is_named() -> None:
    with pytest.raises(InputError, match="already knows a method LORA"):
        register("LORA", SPLoPAConfig, SPLoPAModel)


def test_a_refused_registration_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peft.mapping, "PEFT_TYPE_TO_TUNER_MAPPING", {"NEW": SPLoRAModel})
    with pytest.raises(InputError, match="already knows a method NEW"):
        register("NEW", SPLoPAConfig, SPLoPAModel)
    assert "NEW" not in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING
