"""Folders of adapters, of a run or of plain PEFT: what they are taken for, and what is told where they do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import splora
from splora.model_sizes import check_sizes, impossible, stored_bytes
from splora.tasks import hub
from splora.tasks.embedded.model import embedded_config
from splora.tasks.embedded.tokenizer import build_tokenizer
from splora.training.inference import find_predictor, predict_file
from splora.training.saving import save_trained

Make = Callable[..., nn.Module]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained encoder whose weights are more than 8 times the bytes of a small adapter."""
    from transformers import BertModel

    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    BertModel(embedded_config(**SIZES | {"max_position_embeddings": 8192})).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def adapted(base: Path) -> Make:
    """Makes an adapted classifier or question answerer on the base; options are of `SPLoPAConfig`."""

    def make(labels: dict[int, str] | None = None, **options: Any) -> nn.Module:
        from peft import get_peft_model
        from transformers import BertForQuestionAnswering, BertForSequenceClassification

        from splora.adapters import SPLoPAConfig

        torch.manual_seed(1)
        if labels is None:
            model: Any = BertForQuestionAnswering.from_pretrained(base)
        else:
            by_name = {name: number for number, name in labels.items()}
            model = BertForSequenceClassification.from_pretrained(base, id2label=labels, label2id=by_name)
        settings = {"num_prototypes": 1, "prototype_rank": 1, "target_modules": ["query"], "init_range": 0.5}
        return get_peft_model(model, SPLoPAConfig(**settings | options)).eval()  # type: ignore[no-any-return]

    return make


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    """What a model says of a pair."""
    found = model(**build_tokenizer()("Which river is long?", "The first river is long.", return_tensors="pt"))
    return found.logits if "logits" in found else torch.stack([found.start_logits, found.end_logits])


def rewrite(path: Path, **changes: Any) -> None:
    """Change values of a JSON file."""
    written = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(written | changes), encoding="utf-8")


def save(network: nn.Module, folder: Path, task: str) -> Path:
    """Save an adapted network as a run does; the folder of its adapter."""
    result = {
        "metrics": {},
        "settings": {"model": {"task": task, "model_name_or_path": "base", "adapter": "splopa"}, "data": {}},
        "task": task,
    }
    save_trained(network, build_tokenizer(), folder, result)
    return folder / "adapter"


def test_an_adapter_far_smaller_than_its_base_is_loaded(adapted: Make, tmp_path: Path) -> None:
    network = adapted({0: "negative", 1: "positive"}, modules_to_save=["classifier"])
    folder = save(network, tmp_path, "sst2")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    there = (folder / "adapter_model.safetensors").stat().st_size
    assert impossible(config, there) is not None, "this case must be one that the file's own bytes would refuse"
    check_sizes(folder)
    assert len(hub.load_tokenizer(str(folder))) == len(build_tokenizer())
    torch.testing.assert_close(logits(splora.load_adapter(folder)), logits(network), rtol=0, atol=0)
    (tmp_path / "rows.tsv").write_text("sentence\na good one\n", encoding="utf-8")
    assert len(predict_file(find_predictor(str(folder)), str(tmp_path / "rows.tsv"))) == 1


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("model.safetensors", True),
        ("model-00001-of-00002.safetensors", True),
        ("quantized.safetensors", True),
        ("pytorch_model.bin", True),
        ("pytorch_model-00001-of-00002.bin", True),
        ("adapter_model.safetensors", False),
        ("adapter_model.bin", False),
        ("training_args.bin", False),
        ("optimizer.bin", False),
    ],
)
def test_only_a_model_s_own_weights_are_weighed(name: str, counts: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"0" * 7)
    assert stored_bytes(tmp_path) == (7 if counts else 0)
