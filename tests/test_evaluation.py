"""`splora evaluate`, and the function: any task, named metrics, models in memory, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from splora.errors import InputError
from splora.evaluation import evaluate
from splora.tasks.embedded.classification import write_glue
from splora.tasks.embedded.corpus import corpus
from splora.tasks.embedded.tokenizer import build_tokenizer
from splora.tasks.glue_tasks import TASKS
from splora.tasks.language_modelling import TextDataModule

#: A metric as anybody writes one: it counts, and says what it was given.
_MODULE = """
import datasets
import evaluate


class Given(evaluate.Metric):
    def _info(self):
        features = datasets.Features({features})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        {compute}
"""
_VALUES = '{"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}'
_TEXTS = '{"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}'
_RECORDS = (
    '{"predictions": {"id": datasets.Value("string"), "prediction_text": datasets.Value("string")}, '
    '"references": {"id": datasets.Value("string"), "answers": datasets.Sequence('
    '{"text": datasets.Value("string"), "answer_start": datasets.Value("int32")})}}'
)
_AGREE = 'return {"agree": sum(a == b for a, b in zip(predictions, references)) / len(references), "told": "x"}'


def module(folder: Path, name: str, features: str = _VALUES, compute: str = _AGREE) -> str:
    """The path of a metric's module."""
    path = folder / f"{name}.py"
    path.write_text(_MODULE.format(features=features, compute=compute), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random tiny models for QNLI, whose outputs are named the other way round, and for questions; and their data."""
    place, tokenizer = tmp_path_factory.mktemp("models"), build_tokenizer()
    names = dict(enumerate(reversed(TASKS["qnli"].labels)))
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 16, "vocab_size": len(tokenizer), "max_position_embeddings": 130}
    for head, labels in (("SequenceClassification", {"id2label": names}), ("QuestionAnswering", {})):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            model = getattr(transformers, f"BertFor{head}")(transformers.BertConfig(**sizes, **labels))
        model.save_pretrained(place / head)
        tokenizer.save_pretrained(place / head)
    for path in write_glue(place / "qnli", "qnli").iterdir():
        path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:60]), encoding="utf-8")
    (place / "dev.json").write_text(json.dumps(corpus("dev", 20)), encoding="utf-8")
    return {"qnli": place / "SequenceClassification", "squad": place / "QuestionAnswering", "data": place}


def test_a_named_metric_compares_in_the_task_s_own_order(folders: dict[str, Path], tmp_path: Path) -> None:
    shared: dict[str, Any] = {"precision": "fp32", "device": "cpu"}
    ones = 'return {"ones": float(sum(references))}'
    named = [module(tmp_path, "agree"), module(tmp_path, "ones", compute=ones)]
    found = evaluate(folders["qnli"], "QNLI", folders["data"] / "qnli", metrics=named, **shared)
    assert found["agree/agree"] == pytest.approx(found["accuracy"] / 100, abs=1e-6)
    lines = (folders["data"] / "qnli" / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:]
    assert found["ones/ones"] == sum(line.endswith("not_entailment") for line in lines)
    assert found.keys() == {"accuracy", "agree/agree", "ones/ones"}

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folders["qnli"]).train()
    in_memory = evaluate(model, "qnli", folders["data"] / "qnli", **shared)
    assert in_memory == {"accuracy": found["accuracy"]}
    assert model.training


def test_answers_are_compared_as_texts_or_as_records(folders: dict[str, Path], tmp_path: Path) -> None:
    count = "return {'right': float(sum(a in b for a, b in zip(predictions, references)))}"
    pairs = "for p, r in zip(predictions, references)"
    texts = f"return {{'right': float(sum(p['prediction_text'] in r['answers']['text'] {pairs}))}}"
    named = [module(tmp_path, "plain", _TEXTS, count), module(tmp_path, "records", _RECORDS, texts)]
    found = evaluate(folders["squad"], "squad", folders["data"] / "dev.json", metrics=named, doc_stride=32)
    assert list(found)[:2] == ["f1", "exact_match"]
    assert found["plain/right"] == found["records/right"] <= 20 * found["exact_match"] / 100


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--metric=nosuchmetric"], "metric nosuchmetric: there is no such file, and it cannot be loaded from the hub"),
        (["--metric=broken.py"], "metric broken: cannot be computed of this task (no such thing)"),
        (["--metric=silent.py"], "metric silent: says nothing in numbers"),
        (["--task=qnlii"], "task is 'qnlii'; allowed are squad, squad_v2"),
        (["--max_seq_length=1"], "--max_seq_length is 1; it must be 2 or larger"),
        (["--max_seq_length=131"], "--max_seq_length is 131; "),
        (["--data=nowhere"], "nowhere: there is no such folder"),
        (["--threads=0"], "--threads is 0; it must be 1 or larger"),
        (["--column=label=gold", "--task=ner"], "columns are given, but ner has none; they are for mnli"),
    ],
)
def test_what_cannot_be_judged_is_told_in_a_sentence(
    folders: dict[str, Path],
    tmp_path: Path,
    options: list[str],
    told: str,
    command: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    module(tmp_path, "broken", compute='raise ValueError("no such thing")')
    module(tmp_path, "silent", compute='return {"said": "nothing"}')
    given = [f"--model={folders['qnli']}", "--task=qnli", f"--data={folders['data'] / 'qnli'}", "--device=cpu"]
    status, said = command("evaluate", *given, *options)
    problems = [line for line in said.splitlines() if line.startswith("error: ")]
    assert (status, len(problems)) == (2, 1), said
    assert told in problems[0]
    assert "Traceback" not in said


def test_a_text_has_no_predictions_to_compare() -> None:
    data = TextDataModule.__new__(TextDataModule)
    data.task = "wikitext2"
    with pytest.raises(InputError, match="wikitext2 has a score and no predictions"):
        data.check_references()


def test_labels_are_the_model_s_own_wherever_its_tokenizer_is(folders: dict[str, Path], tmp_path: Path) -> None:
    data, shared = folders["data"] / "qnli", {"precision": "fp32", "device": "cpu"}
    wanted = evaluate(folders["qnli"], "qnli", data, **shared)
    # Another folder with the tokenizer, whose configuration names labels in GLUE's order.
    for file in folders["qnli"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    names = TASKS["qnli"].labels
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert evaluate(folders["qnli"], "qnli", data, tokenizer=tmp_path, **shared) == wanted
    assert evaluate(tmp_path, "qnli", data, **shared) != wanted


def test_a_model_in_memory_without_the_task_s_head_is_refused(tiny: Any, folders: dict[str, Path]) -> None:
    model, tokenizer = tiny("BertForSequenceClassification"), folders["qnli"]
    for task in ("squad", "wikitext2"):
        with pytest.raises(InputError, match=f"is a BertForSequenceClassification, which has no head for {task}"):
            evaluate(model, task, "embedded", tokenizer=tokenizer)
    with pytest.raises(InputError, match="model: this checkpoint has 3 labels; qnli needs 2"):
        evaluate(tiny("BertForSequenceClassification", num_labels=3), "qnli", "embedded", tokenizer=tokenizer)
