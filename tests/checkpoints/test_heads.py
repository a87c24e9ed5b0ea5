"""A trained head is known by the configuration, or by the names of the weights where it is silent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from splora.checkpoints.heads import has_head
from splora.errors import InputError
from splora.tasks.hub import load_config

HEADS = {
    "ForQuestionAnswering": ("squad", "squad_v2"),
    "ForSequenceClassification": ("sst2", "mnli", "stsb"),
}
EVERY = [task for tasks in HEADS.values() for task in tasks]


@pytest.mark.parametrize("told", ["class", "nothing", "another"])
@pytest.mark.parametrize("family", ["Bert", "Roberta", "DistilBert"])
@pytest.mark.parametrize("kind", ["ForMaskedLM", *HEADS])
def test_heads_are_known(kind: str, family: str, told: str, tiny: Any, tmp_path: Path) -> None:
    tiny(family + kind).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    written["architectures"] = {
        "class": written["architectures"],
        "nothing": None,
        "another": [f"{family}ForMaskedLM"],
    }[told]
    path.write_text(json.dumps(written), encoding="utf-8")
    config = load_config(str(tmp_path))
    assert [task for task in EVERY if has_head(str(tmp_path), config, task)] == list(HEADS.get(kind, ()))


@pytest.mark.parametrize("form", ["pickle", "parts", "cut list of parts", "numbers", "cut"])
def test_other_files_of_weights(form: str, tiny: Any, tmp_path: Path) -> None:
    model = tiny("BertForQuestionAnswering")
    model.config.save_pretrained(tmp_path)
    config = load_config(str(tmp_path), alone=True)
    config.architectures = None
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    index = tmp_path / "model.safetensors.index.json"
    if form == "pickle":
        torch.save(weights, tmp_path / "pytorch_model.bin")
    elif form == "numbers":
        torch.save({0: torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    elif form == "cut":
        (tmp_path / "model.safetensors").write_bytes(b"\x20")
    else:
        save_file(weights, tmp_path / "part.safetensors")
        content = json.dumps({"weight_map": dict.fromkeys(weights, "part.safetensors")})
        index.write_text(content if form == "parts" else content[:50], encoding="utf-8")
    if form == "cut list of parts":
        with pytest.raises(InputError, match=r"index\.json: is not JSON"):
            has_head(str(tmp_path), config, "squad")
    else:
        assert has_head(str(tmp_path), config, "squad") == (form in ("pickle", "parts"))
    assert not has_head("nobody/knows-it", config, "squad")


def test_a_tagger_of_tokens_is_no_classifier_of_texts(tiny: Any, tmp_path: Path) -> None:
    tiny("RobertaForTokenClassification").save_pretrained(tmp_path)
    assert not has_head(str(tmp_path), load_config(str(tmp_path)), "sst2")
