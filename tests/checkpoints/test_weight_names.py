"""One loader for every use: wrapped names are recognized, and what is missing or of another shape refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from splora.checkpoints.checkpoint import load_checkpoint
from splora.errors import InputError
from splora.tasks import hub
from splora.tasks.embedded.tokenizer import build_tokenizer
from splora.training.model import load_base
from splora.training.options import DistillationOptions
from splora.training.saving import load_run
from splora.training.teacher import load_teacher

Tiny = Callable[..., Any]
Rename = Callable[[str], str]
QUESTIONS, CLASSIFIER = "ForQuestionAnswering", "ForSequenceClassification"
FAMILIES = ("Bert", "Roberta", "DistilBert", "OPT")


def teacher(folder: str, task: str) -> Any:
    return load_teacher(DistillationOptions(folder), task, build_tokenizer()).network


def finished(folder: str, task: str) -> Any:
    """The model as the one that a finished run left."""
    run = Path(folder).parent
    (run / "result.json").write_text(
        json.dumps({"settings": {"model": {"task": task}}, "metrics": {}}), encoding="utf-8"
    )
    return load_run(run)


USES: dict[str, Callable[[str, str], Any]] = {
    "base": load_base,
    "teacher": teacher,
    "finished run": finished,
    "prune and quantize": load_checkpoint,
}


@pytest.fixture
def stored(tiny: Tiny, tmp_path: Path) -> Callable[[str, Rename], tuple[Path, dict[str, torch.Tensor]]]:
    """Write a tiny model with renamed weights; its folder, and its weights under their own names."""

    def write(name: str, rename: Rename = str) -> tuple[Path, dict[str, torch.Tensor]]:
        model, folder = tiny(name), tmp_path / "model"
        model.save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)
        weights = load_file(folder / "model.safetensors")
        renamed = {new: value for key, value in weights.items() if (new := rename(key))}
        save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
        return folder, model.state_dict()

    return write


WRAPPED: dict[str, Rename] = {
    "module": lambda key: f"module.{key}",
    "model": lambda key: f"model.{key}",
    "network": lambda key: f"network.{key}",
    "compiled": lambda key: f"_orig_mod.{key}",
    "nested": lambda key: f"module._orig_mod.network.{key}",
    "some of them": lambda key: f"module.{key}" if "layer" in key else key,
    "compiled inside": lambda key: key.replace(".", "._orig_mod.", 1),
    "twice": lambda key: f"model.model.model.{key}",
}


@pytest.mark.parametrize("wrapped", WRAPPED)
@pytest.mark.parametrize("family", FAMILIES)
def test_wrapped_names_are_the_model_s_own(
    family: str, wrapped: str, stored: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder, expected = stored(family + QUESTIONS, WRAPPED[wrapped])
    found = load_base(str(folder), "squad").state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert "names of its weights are a wrapped model's" in caplog.text or family == "OPT"


@pytest.mark.parametrize("use", USES)
def test_every_use_takes_them_and_refuses_the_rest(use: str, stored: Any) -> None:
    folder, expected = stored("Bert" + QUESTIONS, WRAPPED["module"])
    found = USES[use](str(folder), "squad").state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    for rename, message in (
        (lambda key: f"foo.{key}", r"of the encoder cannot be found, such as bert\."),
        (
            lambda key: key.replace("layer.1", "layer.9"),
            r"of the encoder cannot be found, such as bert\.encoder\.layer\.1",
        ),
        (
            lambda key: key.replace("qa_outputs", "answers"),
            r"has no head for squad: qa_outputs\.bias and qa_outputs\.weight",
        ),
        (
            lambda key: "" if key == "qa_outputs.bias" else key,
            r"has no head for squad: qa_outputs\.bias cannot be found",
        ),
        (lambda key: "" if "word_emb" in key else key, r"1 weight of the encoder cannot be found"),
    ):
        folder, _ = stored("Bert" + QUESTIONS, rename)
        with pytest.raises(InputError, match=message) as raised:
            USES[use](str(folder), "squad")
        assert len(raised.value.problems) == 1
    folder, _ = stored("Bert" + QUESTIONS)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for change, message in (
        ({"intermediate_size": 16}, r"is 20 in the checkpoint, but 16 by config\.json"),
        ({"num_hidden_layers": 2}, "16 weights of its layers have no place by config.json"),
        ({"type_vocab_size": 1}, r"is 2×24 in the checkpoint, but 1×24 by"),
        ({"pruned_heads": {"0": [1]}}, "heads were pruned .*, in 1 layers.*; pass the unpruned checkpoint"),
        ({"id2label": ["a"]}, "id2label or label2id is no object"),
        ({"id2label": {"x": "a"}}, "config.json numbers a label 'x'"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            USES[use](str(folder), "squad")


@pytest.mark.parametrize(("name", "task"), [("BertForMaskedLM", "squad"), ("BertForQuestionAnswering", "mnli")])
def test_only_training_makes_a_new_head(name: str, task: str, stored: Any) -> None:
    folder, expected = stored(name)
    labels = {"entailment": 0, "neutral": 1, "contradiction": 2} if task == "mnli" else None
    model: Any = load_base(str(folder), task, label2id=labels)
    assert (model.classifier if labels else model.qa_outputs).out_features == (3 if labels else 2)
    found = model.state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected if key.startswith("bert.enc"))
    for use in ("teacher", "prune and quantize"):
        with pytest.raises(InputError):
            USES[use](str(folder), task)


def test_a_fine_tuned_head_of_another_task_is_no_start(stored: Any) -> None:
    folder, _ = stored("Bert" + CLASSIFIER)
    with pytest.raises(InputError, match=r"this checkpoint has 2 labels; mnli needs 3 \(entailment, neutral, contrad"):
        load_base(str(folder), "mnli", label2id={"entailment": 0, "neutral": 1, "contradiction": 2})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"architectures": None}), encoding="utf-8")
    with pytest.raises(InputError, match=r"this checkpoint has 2 labels; mnli needs 3"):
        load_base(str(folder), "mnli", label2id={"entailment": 0, "neutral": 1, "contradiction": 2})


def test_there_is_no_second_loader(root: Path) -> None:
    """Of everything that makes a model of files; `export` has its own for folders of this program."""
    allowed = {
        "splora/tasks/hub.py",
        "splora/checkpoints/checkpoint.py",
        *(f"splora/export/{name}.py" for name in ("folder", "pruned_modeling", "quantized", "quantized_modeling")),
    }
    pattern = re.compile(r"\bload_model\(|\b(auto_model|AutoModel\w*|\w+For\w+|class\w*)\)?\.from_pretrained\(")
    files = [path for folder in ("splora", "scripts", "callbacks", "hparams") for path in (root / folder).rglob("*.py")]
    found = {path.relative_to(root).as_posix() for path in files if pattern.search(path.read_text(encoding="utf-8"))}
    assert found <= allowed
    assert "splora/checkpoints/checkpoint.py" in found


@pytest.fixture
def shadowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with `bert-base-uncased/config.json` and no weights, and a cache with the hub's model."""
    from splora.tasks.embedded.model import write_embedded_model

    (tmp_path / "bert-base-uncased").mkdir()
    wrong = json.dumps({"model_type": "gpt2", "n_embd": 7})
    (tmp_path / "bert-base-uncased" / "config.json").write_text(wrong, encoding="utf-8")
    cache = tmp_path / "cache"
    repository = cache / "models--bert-base-uncased"
    write_embedded_model(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "reachable", lambda: False)
    return cache


def test_a_folder_without_weights_never_shadows_a_hub_name(shadowed: Path) -> None:
    import transformers

    from splora.training.preflight import preflight
    from splora.training.specification import RunSpecification

    name, cache = "bert-base-uncased", str(shadowed)
    assert hub.load_config(name, cache).hidden_size == 128
    assert len(hub.load_tokenizer(name, cache)) == len(build_tokenizer())
    model = hub.load_model(transformers.AutoModel, name, cache_dir=cache)
    assert model.config.num_hidden_layers == 3
    with pytest.raises(InputError, match="has no head for sst2"):
        load_checkpoint(name, "sst2", cache_dir=cache)
    specification = RunSpecification(model_name_or_path=name, teacher_name_or_path=name)
    assert [problem for problem in preflight(specification) if problem.field.endswith("_or_path")] == []
    for load in (hub.load_config, hub.load_tokenizer):
        with pytest.raises(
            InputError, match=r"the folder of that name holds no weights, and .* no network .*fetch\.py"
        ):
            load(name, str(shadowed / "empty"))
    assert hub.load_config(f"./{name}", cache).model_type == "gpt2"
    assert hub.load_config(name, str(shadowed / "empty"), alone=True).model_type == "gpt2"
    with pytest.raises(InputError, match="this folder has a configuration, but no weights"):
        hub.check_weights(f"./{name}")
