"""`splora predict`: what it answers without labels is what the model's own evaluation answered with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from splora.errors import InputError
from splora.scripts import cli
from splora.scripts.predict import is_for_lightning
from splora.tasks.embedded import classification, corpus
from splora.tasks.embedded.tokenizer import build_tokenizer
from splora.training.inference import find_predictor, predict_file
from splora.training.run import run
from splora.training.specification import RunSpecification

Make = Callable[..., RunSpecification]


def questions() -> dict[str, Any]:
    """The embedded evaluation questions in SQuAD's layout, without answers."""
    content = corpus.corpus("dev", 60)
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            paragraph["qas"] = [{"id": asked["id"], "question": asked["question"]} for asked in paragraph["qas"]]
    return dict(content)


def rows(task: str, name: str, ending: str, folder: Path) -> Path:
    """An embedded table without its labels, in a file of this format."""
    from splora.tasks.glue_tasks import TASKS

    lines = [line.split("\t") for line in classification.table(task, name).splitlines() if line.strip()]
    kept = [lines[0].index(column) for column in TASKS[task].sentences]
    table = [[cells[place] for place in kept] for cells in lines]
    path = folder / f"rows{ending}"
    if ending == ".tsv":
        path.write_text("".join("\t".join(cells) + "\n" for cells in table), encoding="utf-8")
    else:
        objects = [dict(zip(table[0], cells, strict=True)) for cells in table[1:]]
        path.write_text(json.dumps(objects), encoding="utf-8")
    return path


@pytest.mark.parametrize("adapter", ["none", "splopa"])
def test_a_run_answers_as_in_its_own_evaluation(
    adapter: str, tiny_spec: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    run(tiny_spec(pruning_method="topK", adapter=adapter, max_steps=3), folder)
    evaluated = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
    asked = tmp_path / "questions.json"
    asked.write_text(json.dumps(questions()), encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    capsys.readouterr()
    cli.main(["predict", str(folder), "--input", str(asked), "--precision", "fp32"])
    assert json.loads(capsys.readouterr().out) == evaluated
    inner = folder / ("model" if adapter == "none" else "adapter")
    cli.main(
        ["predict", str(inner), "--input", str(asked), "--output", str(tmp_path / "a.json"), "--precision", "fp32"]
    )
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == evaluated
    if adapter != "none":
        capsys.readouterr()
        cli.main(["count", str(folder), str(inner)])
        of_run, of_adapter = (line.split()[1:] for line in capsys.readouterr().out.splitlines()[1:])
        assert of_run == of_adapter, "an adapter's folder counts as its run does, trained parameters included"
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}, "a finished run is only read"

    flat = [
        {"question": asked["question"], "context": paragraph["context"]}
        for article in questions()["data"]
        for paragraph in article["paragraphs"]
        for asked in paragraph["qas"]
    ]
    (tmp_path / "flat.json").write_text(json.dumps(flat), encoding="utf-8")
    found = predict_file(find_predictor(str(folder)), str(tmp_path / "flat.json"), precision="fp32")
    assert list(found) == [str(number) for number in range(len(flat))]
    assert list(found.values()) == list(evaluated.values())


@pytest.mark.parametrize(("task", "adapter"), [("sst2", "splora"), ("mnli", "none"), ("stsb", "splopa")])
def test_a_run_classifies_as_in_its_own_evaluation(task: str, adapter: str, tiny_spec: Make, tmp_path: Path) -> None:
    from splora.tasks.glue_tasks import TASKS

    folder = tmp_path / "run"
    run(tiny_spec(pruning_method="topK", adapter=adapter, task=task, max_steps=3), folder)
    evaluated = list(json.loads((folder / "predictions.json").read_text(encoding="utf-8")).values())
    name = TASKS[task].files("eval")[""]
    for ending in (".tsv", ".json"):
        found = predict_file(find_predictor(str(folder)), str(rows(task, name, ending, tmp_path)), precision="fp32")
        assert list(found) == list(range(len(found)))
        wanted = evaluated[: len(found)]  # MNLI's second part follows
        assert list(found.values()) == (pytest.approx(wanted, abs=1e-5) if task == "stsb" else wanted)
    assert len(evaluated) >= len(found) > 50


@torch.no_grad()
def centre(model: Any) -> None:
    """Let the classes part where the middle of the embedded sentences is, so that both are met."""
    sentences = [line.split("\t")[0] for line in classification.table("sst2", "dev.tsv").splitlines()[1:]]
    logits = model(**build_tokenizer()(sentences, padding=True, return_tensors="pt")).logits
    model.classifier.bias.sub_(logits.median(dim=0).values)


def fine_tuned(task: str, labels: dict[int, str]) -> Any:
    """A random classifier with the embedded vocabulary."""
    from transformers import BertForSequenceClassification

    from splora.tasks.embedded.model import embedded_config

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = embedded_config(**sizes)
    config.num_labels = len(labels)
    config.id2label, config.label2id = labels, {name: number for number, name in labels.items()}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = BertForSequenceClassification(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    centre(model)
    return model


@pytest.mark.parametrize("kind", ["plain", "pruned", "quantized"])
def test_a_folder_of_a_model_classifies_as_it_is_evaluated(kind: str, tmp_path: Path) -> None:
    from splora.export.cut import cut
    from splora.export.folder import save_pruned
    from splora.export.plan import Plan
    from splora.export.quantized import load_quantized, save_quantized
    from splora.posttraining.core.evaluation import predict
    from splora.posttraining.quantize.grid import GridOptions
    from splora.tasks.glue import GlueDataModule

    # Labels in another order than GLUE's: names are those of the model.
    model, tokenizer = fine_tuned("sst2", {0: "positive", 1: "negative"}), build_tokenizer()
    folder = tmp_path / kind
    if kind == "plain":
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    elif kind == "pruned":
        model = cut(model, Plan(((0,), (0, 1)), ((0, 5, 9), (1, 2))))
        centre(model)
        save_pruned(model, tokenizer, folder)
    else:
        save_quantized(model, {}, GridOptions(), tokenizer, folder)
        model = load_quantized(folder)
    data = GlueDataModule(str(folder), "embedded", "embedded", task="sst2")
    logits = predict(model, data).logits["logits"]
    found = predict_file(find_predictor(str(folder)), str(rows("sst2", "dev.tsv", ".tsv", tmp_path)), precision="fp32")
    assert list(found.values()) == [["positive", "negative"][number] for number in logits.argmax(1)]
    assert len(set(found.values())) == 2


def test_what_a_pruning_says_of_its_inputs_is_kept(tmp_path: Path) -> None:
    model, folder = fine_tuned("sst2", {0: "entailment", 1: "not_entailment"}), tmp_path / "model"
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    with pytest.raises(InputError, match="name it with --task: qnli, rte"):
        find_predictor(str(folder))
    settings = {"max_seq_length": 40, "doc_stride": 8, "columns": {"sentence1": "a"}}
    (folder / "result.json").write_text(json.dumps({"task": "rte", "settings": settings}), encoding="utf-8")
    found = find_predictor(str(folder))
    assert found.task == "rte"
    assert found.settings == {"max_seq_length": 40, "columns": {"sentence1": "a"}}
    with pytest.raises(InputError, match=r"--task is qnli, but .* was made for rte; leave it out"):
        find_predictor(str(folder), "qnli")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none", "--input", "rows.tsv"], "none: there is no such folder"),
        (["n" * 300, "--input", "rows.tsv"], "File name too long"),
        (["model", "--input", "gone.tsv"], "--input: gone.tsv: there is no such file"),
        (["model", "--input", "rows.tsv", "--output", "rows.tsv"], "--output: rows.tsv is there already"),
        (["model", "--input", "rows.tsv", "--task", "sst3"], "task is 'sst3'; allowed are"),
        (["model", "--input", "rows.tsv", "--task", "wikitext2"], "--task is 'wikitext2', which is for language"),
        (["model", "--input", "rows.tsv", "--column", "review"], "--column is 'review'; it reads NAME=COLUMN"),
        (["model", "--input", "rows.tsv", "--max_seq_length", "3"], "--max_seq_length is 3; it must be 8 or larger"),
        (["model", "--input", "other.tsv"], "other.tsv: line 1: has no column 'sentence'"),
        (["model", "--input", "rows.tsv", "--precision", "fp64"], "--precision is 'fp64'; allowed are"),
    ],
)
def test_mistakes_end_in_one_sentence(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fine_tuned("sst2", {0: "negative", 1: "positive"}).save_pretrained(tmp_path / "model")
    build_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "rows.tsv").write_text("sentence\na good one\n", encoding="utf-8")
    (tmp_path / "other.tsv").write_text("review\tstars\na good one\t3\n", encoding="utf-8")
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main(["predict", *arguments])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert told in lines[0]


@pytest.mark.parametrize(
    ("arguments", "lightnings"),
    [
        (["--config", "a.yaml"], True),
        (["-c", "a.yaml"], True),
        (["--config=a.yaml"], True),
        (["--model.trained_run", "runs/a", "--data", "x"], True),
        (["--trainer.devices=1"], True),
        (["runs/a", "--input", "a.json"], False),
        (["runs/a", "--input", "a.json", "--column", "label=gold"], False),
        (["--help"], False),
        ([], False),
    ],
)
def test_lightnings_command_of_the_name_is_still_there(arguments: list[str], lightnings: bool) -> None:
    assert is_for_lightning(arguments) == lightnings
