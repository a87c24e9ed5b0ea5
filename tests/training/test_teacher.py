"""A teacher gets inputs made for it, whatever the student's are, and answers in the student's order of labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from splora.errors import InputError
from splora.tasks.data_module import TaskDataModule
from splora.tasks.embedded.tokenizer import build_tokenizer
from splora.tasks.features import Collator
from splora.tasks.sources import make_data_module
from splora.training.options import DistillationOptions
from splora.training.teacher import Teacher, feed, load_teacher

FAMILIES = ("Bert", "Roberta", "DistilBert", "OPT")
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a tiny model of a family, with the embedded tokenizer as that family has it; the folder."""

    def write(name: str, family: str, task: str = "mnli", **changes: Any) -> Path:
        sizes = {"vocab_size": len(build_tokenizer()), "max_position_embeddings": 80}
        bert = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
        settings = {
            "Bert": bert,
            "Roberta": bert | {"type_vocab_size": 1, "pad_token_id": 3},
            "DistilBert": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 12},
            "OPT": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 12}
            | {"word_embed_proj_dim": 16},
        }[family]
        head = "ForQuestionAnswering" if task == "squad" else "ForSequenceClassification"
        labels = 2 if task == "squad" else 3
        config = getattr(transformers, f"{family}Config")(num_labels=labels, **settings | sizes | changes)
        torch.manual_seed(1)
        getattr(transformers, family + head)(config).save_pretrained(tmp_path / name)
        tokenizer = build_tokenizer()
        tokenizer.model_input_names = ["input_ids", *(["token_type_ids"] if family == "Bert" else []), "attention_mask"]
        tokenizer.save_pretrained(tmp_path / name)
        return tmp_path / name

    return write


def batch_of(data: TaskDataModule) -> dict[str, Any]:
    return Collator(data.features("train"), data.pad_token_id, data.width)(range(6))


def taught(teacher: Path, data: TaskDataModule) -> Teacher:
    found = load_teacher(DistillationOptions(str(teacher)), data.task, data.tokenizer, getattr(data, "label2id", None))
    feed(found, str(teacher), data)
    return found


@pytest.mark.parametrize("task", ["mnli", "squad"])
@pytest.mark.parametrize("teacher", FAMILIES)
@pytest.mark.parametrize("student", FAMILIES)
def test_every_teacher_says_to_a_student_s_batch_what_it_says_alone(
    student: str, teacher: str, task: str, make: Make, tmp_path: Path
) -> None:
    options = {"max_seq_length": 64, "max_train_examples": 6, "cache_dir": str(tmp_path)}
    options |= {"doc_stride": 16} if task == "squad" else {}
    of_student, of_teacher = (
        make_data_module(task, str(make(name, family, task)), "embedded", "embedded", **options)
        for name, family in (("student", student), ("teacher", teacher))
    )
    found = taught(tmp_path / "teacher", of_student)
    with torch.no_grad():
        answered = found(batch_of(of_student))
        batch = batch_of(of_teacher)
        names = {"input_ids", "attention_mask", "token_type_ids"} & {*batch}
        alone = found.network(**{name: batch[name] for name in names})
    assert ("token_type_ids" in names) == (teacher == "Bert") == found.needs_segments
    for name, values in answered.items():
        inside = batch["attention_mask"].bool() if task == "squad" else slice(None)
        assert torch.equal(values[inside], alone[name][inside])


def test_a_teacher_s_own_order_of_labels(make: Make, tmp_path: Path) -> None:
    options = {"max_seq_length": 64, "max_train_examples": 6, "cache_dir": str(tmp_path)}
    student = make_data_module("mnli", str(make("student", "Bert")), "embedded", "embedded", **options)
    teacher = make("teacher", "Bert")
    plain = taught(teacher, student)(batch_of(student))["logits"]
    path = teacher / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    names = {"0": "NEUTRAL", "1": "Contradiction", "2": "entail"}
    path.write_text(json.dumps(settings | {"id2label": names, "label2id": None}), encoding="utf-8")
    assert torch.equal(taught(teacher, student)(batch_of(student))["logits"], plain[:, [2, 0, 1]])
    path.write_text(json.dumps(settings | {"id2label": {"0": "a", "1": "b", "2": "c"}}), encoding="utf-8")
    with pytest.raises(InputError, match=r"its outputs are named a, b, c in config\.json, and the task's labels are"):
        taught(teacher, student)


def test_a_teacher_that_cannot_be_fed(make: Make, tmp_path: Path) -> None:
    options = {"max_seq_length": 64, "max_train_examples": 6, "cache_dir": str(tmp_path)}
    student = make_data_module("mnli", str(make("student", "Bert")), "embedded", "embedded", **options)
    short = make("teacher", "Roberta", max_position_embeddings=12)
    with pytest.raises(InputError, match=r"The length of training rows is \d+; the teacher .* has 8 positions"):
        taught(short, student)
    other = make("teacher", "DistilBert")
    tokenizer = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["post_processor"] = None
    (other / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    settings = json.loads((other / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (other / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(InputError, match="has another tokenizer than the student"):
        taught(other, student)


@pytest.mark.parametrize(("family", "most"), [("Bert", 80), ("Roberta", 76), ("DistilBert", 80), ("OPT", 80)])
def test_rows_are_never_longer_than_positions(family: str, most: int, make: Make, tmp_path: Path) -> None:
    folder = make("model", family)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings.pop("model_max_length")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    options = {"train_file": "embedded", "predict_file": "embedded", "cache_dir": str(tmp_path)}
    assert make_data_module("mnli", str(folder), max_seq_length=most, **options).width == most
    with pytest.raises(InputError, match=rf"max_seq_length is {most + 1}; .* has {most} positions\.$"):
        make_data_module("mnli", str(folder), max_seq_length=most + 1, **options).features("eval")
