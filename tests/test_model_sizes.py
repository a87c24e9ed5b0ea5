"""Sizes of a model are judged before it is built, by every command that would build it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splora.checkpoints.checkpoint import check_kind, load_checkpoint
from splora.errors import InputError
from splora.export.folder import load_pruned, save_pruned
from splora.export.quantized import load_quantized
from splora.model_sizes import check_sizes, impossible
from splora.tasks.hub import load_config
from splora.training.model import load_base
from splora.training.preflight import preflight
from splora.training.saving import load_run
from splora.training.specification import RunSpecification

BERT = {
    "model_type": "bert",
    "architectures": ["BertForQuestionAnswering"],
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
ABSURD: list[tuple[dict[str, Any], str]] = [
    ({"num_hidden_layers": 10_000_000}, "num_hidden_layers is 10,000,000; allowed are whole numbers from 1 to 1,000"),
    ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
    ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
    ({"num_hidden_layers": "12"}, "num_hidden_layers is '12'"),
    ({"num_hidden_layers": None}, "num_hidden_layers is None"),
    ({"hidden_size": 1e308}, "hidden_size is 1e\\+308"),
    ({"hidden_size": True}, "hidden_size is True"),
    ({"intermediate_size": 10**18}, "intermediate_size is"),
    ({"vocab_size": 10**12}, "vocab_size is"),
    ({"max_position_embeddings": 10**11}, "max_position_embeddings is"),
    ({"num_labels": 10**9}, "num_labels is"),
    ({"num_hidden_layers": 1000}, "million weights; the weights files beside it have"),
    ({"num_hidden_layers": 1000, "hidden_size": 2**17, "vocab_size": 2**23}, "million weights|GiB of memory"),
    ({"per_layer_config": {"0": {"num_attention_heads": 10**7}}}, "num_attention_heads is 10,000,000"),
    ({"per_layer_config": [{}] * 2000}, "per_layer_config has 2,000 entries"),
    ({"id2label": 5}, "id2label or label2id is no object"),
]


@pytest.fixture
def model(tmp_path: Path, tiny: Any) -> Path:
    """A small model, saved."""
    save_pruned(tiny("BertForQuestionAnswering"), None, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(("change", "told"), ABSURD)
def test_absurd_sizes_are_one_sentence_for_every_command(model: Path, change: dict[str, Any], told: str) -> None:
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    run = model.parent
    result = {"metrics": {}, "settings": {"model": {"task": "squad"}}}
    (run / "result.json").write_text(json.dumps(result), encoding="utf-8")
    begun = time.monotonic()
    for load in (
        lambda: load_config(str(model)),
        lambda: load_base(str(model), "squad"),
        lambda: check_kind(str(model), "squad"),
        lambda: load_checkpoint(str(model), "squad"),
        lambda: load_pruned(model),
        lambda: load_quantized(model),
        lambda: load_run(run),
    ):
        with pytest.raises(InputError, match=told):
            load()
    (problem,) = [p for p in preflight(RunSpecification(model_name_or_path=str(model))) if "config.json" in p.message]
    assert problem.field == "model_name_or_path"
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"[" * 100_000, b"\xff", b'{"model_type": "bert", "num_hidden_layers": ' + b"9" * 5000 + b"}"],
)
def test_a_damaged_configuration_is_one_sentence(model: Path, content: bytes) -> None:
    (model / "config.json").write_bytes(content)
    for load in (
        lambda: load_config(str(model)),
        lambda: load_checkpoint(str(model), "squad"),
        lambda: load_pruned(model),
    ):
        with pytest.raises(InputError, match=r"config\.json: ") as caught:
            load()
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("stored", [0, 220_000_000, 440_000_000])
def test_stock_models_pass(stored: int) -> None:
    assert impossible(BERT, stored) is None
    assert impossible(BERT | {"num_labels": 3, "id2label": {"0": "a"}, "per_layer_config": None}, stored) is None
    opt = {
        "hidden_size": 768,
        "ffn_dim": 3072,
        "num_hidden_layers": 12,
        "word_embed_proj_dim": None,
        "vocab_size": 50272,
    }
    assert impossible(opt, stored) is None
    assert impossible({"dim": 768, "hidden_dim": 3072, "n_layers": 6, "n_heads": 12}, stored) is None
    packed = BERT | {"splora_quantization": {"bits": 2}, "per_layer_config": {"0": {"intermediate_size": 0}}}
    assert impossible(packed, 2_000_000) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3), st.lists, max_leaves=3
)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from([*BERT, "per_layer_config", "id2label", "quantization_config"]), _JSON))
def test_any_values_are_judged_without_a_crash(config: dict[str, Any]) -> None:
    found = impossible(BERT | config, 10**8)
    assert found is None or len(found) < 250


def test_a_folder_without_a_configuration_is_no_finding(tmp_path: Path) -> None:
    check_sizes(tmp_path)


def test_an_adapter_of_absurd_sizes_is_one_sentence(tmp_path: Path) -> None:
    result = {"metrics": {}, "settings": {"model": {"task": "squad"}}}
    (tmp_path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    with pytest.raises(InputError, match="holds neither model/ nor adapter/"):
        load_run(tmp_path)
    (tmp_path / "adapter").mkdir()
    for value in (10**9, 1e308):
        (tmp_path / "adapter" / "adapter_config.json").write_text(
            json.dumps({"num_prototypes": value}), encoding="utf-8"
        )
        with pytest.raises(InputError, match="no adapter has"):
            load_run(tmp_path)
