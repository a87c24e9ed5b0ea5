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
from splora.errors import InputError
from splora.model_sizes import check_sizes, impossible, stored_bytes
from splora.tasks import hub
from splora.tasks.embedded.model import embedded_config
from splora.tasks.embedded.tokenizer import build_tokenizer
from splora.training.inference import find_predictor, predict_file
from splora.training.preflight import preflight
from splora.training.saving import _save_base_config
from splora.training.specification import RunSpecification

Make = Callable[..., Any]
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

    def make(labels: dict[int, str] | None = None, **options: Any) -> Any:
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
        return get_peft_model(model, SPLoPAConfig(**settings | options)).eval()

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


def save(network: Any, folder: Path, task: str) -> Path:
    """Save an adapted network as a run does; the folder of its adapter."""
    network.save_pretrained(str(folder / "adapter"))
    _save_base_config(network.get_base_model(), task, folder / "adapter")
    build_tokenizer().save_pretrained(folder / "adapter")
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


@pytest.mark.parametrize("kind", ["classes", "questions"])
def test_an_adapter_of_plain_peft_with_a_task_type(
    kind: str, adapted: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = kind == "questions"  # such files were written before the type was left out
    network = adapted(modules_to_save=["qa_outputs"]) if old else adapted({0: "a", 1: "b", 2: "c"}, task_type="SEQ_CLS")
    network.save_pretrained(str(tmp_path))
    if old:
        rewrite(tmp_path / "adapter_config.json", task_type="QUESTION_ANS", auto_mapping=None)
    written = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert written["task_type"]
    assert not written["auto_mapping"]
    torch.testing.assert_close(logits(splora.load_adapter(tmp_path)), logits(network), rtol=0, atol=0)
    assert ("was trained without segments" in caplog.text) == old
    if old:
        assert find_predictor(str(tmp_path)).task == "squad"
        assert find_predictor(str(tmp_path), "squad_v2").task == "squad_v2"
        return
    with pytest.raises(InputError, match=r"does not say what it was fine-tuned for; name it with --task: mnli\.$"):
        find_predictor(str(tmp_path))
    assert find_predictor(str(tmp_path), "mnli").task == "mnli"


@pytest.mark.parametrize("other", [{}, {"LABEL_0": 0, "LABEL_1": 1}, {"a": 1, "b": 0}, None])
def test_labels_are_those_of_id2label(other: dict[str, int] | None, adapted: Make, tmp_path: Path) -> None:
    folder = save(adapted({0: "positive", 1: "negative"}, task_type="SEQ_CLS"), tmp_path, "sst2")
    rewrite(folder / "config.json", label2id=other)
    assert splora.load_adapter(folder).config.id2label == {0: "positive", 1: "negative"}
    rewrite(folder / "config.json", label2id={"negative": 0, "positive": 1})
    with pytest.raises(InputError, match=r"id2label and label2id in config\.json contradict"):
        find_predictor(str(folder))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("run/result.json", {"metrics": {}}, "it names no task"),
        ("run/result.json", {"metrics": {}, "settings": {"model": []}}, "it names no task"),
        ("run/result.json", {"metrics": {}, "settings": {"model": {"task": "sst3"}}}, "its task is 'sst3'"),
        ("run/result.json", {"metrics": {}, "settings": {"model": {"task": "rte"}}}, "it names no model"),
        ("run/result.json", "[" * 100_000, "result.json: is not JSON"),
        ("model/result.json", "[" * 100_000, "result.json: is not JSON"),
        ("model/result.json", "{", "result.json: is not JSON"),
        ("model/result.json", {"task": "sst2", "settings": {"max_seq_length": "x"}}, "its max_seq_length is 'x'"),
        ("model/result.json", {"task": "sst2", "settings": {"columns": [1]}}, r"its columns is \[1\]"),
        ("run/adapter_config.json", "[" * 100_000, "adapter_config.json: is not JSON"),
        ("run/adapter_config.json", {"rank": 1e9, "task_type": "SEQ_CLS"}, "which no adapter has"),
        ("run/adapter_config.json", {"auto_mapping": [], "task_type": {}}, "adapter of a model without a class"),
        ("run/adapter_config.json", {"task_type": "CAUSAL_LM"}, "adapter of a 'CAUSAL_LM', which has no task here"),
    ],
)
def test_damaged_results_and_settings_are_one_sentence(name: str, content: Any, told: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir()
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / name).write_text(text, encoding="utf-8")
    if name.startswith("model/"):
        config = embedded_config(**SIZES)
        config.architectures, config.id2label = ["BertForSequenceClassification"], {0: "negative", 1: "positive"}
        config.save_pretrained(tmp_path / "model")
        (tmp_path / "model" / "model.safetensors").write_bytes(b"0" * 10**6)
    with pytest.raises(InputError, match=told) as refused:
        find_predictor(str((tmp_path / name).parent))
    assert len(refused.value.problems) == 1


def test_an_adapter_in_a_model_s_place(
    base: Path, adapted: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from splora.checkpoints.checkpoint import load_checkpoint
    from splora.export.folder import is_model_folder, load_pruned
    from splora.training.model import load_base

    save(adapted({0: "negative", 1: "positive"}, task_type="SEQ_CLS"), tmp_path / "run", "sst2")
    monkeypatch.chdir(tmp_path)
    told = f"adapter and no model; name what it starts from \\('{base}'\\), or merge it"
    for name in ("run/adapter", str(tmp_path / "run" / "adapter")):
        assert not is_model_folder(name)
        for load in (
            lambda name=name: load_base(name, "sst2"),
            lambda name=name: load_checkpoint(name, "sst2"),
            lambda name=name: load_pruned(name),
        ):
            with pytest.raises(InputError, match=told):
                load()
        for field in ("model_name_or_path", "teacher_name_or_path"):
            problems = preflight(RunSpecification(**{"task": "sst2", field: name}))
            assert [p.field for p in problems if "is an adapter and no model; name what it" in p.message] == [field]
