"""From a data folder and a task's name, however it is spelled, to a data module."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from splora.errors import InputError
from splora.tasks.embedded.classification import write_glue
from splora.tasks.glue import GlueDataModule
from splora.tasks.sources import TASKS, canonical_task, data_sources, make_data_module
from splora.tasks.squad import SquadDataModule
from splora.training import specification


def questions(path: Path) -> Path:
    answers = {"text": ["a"], "answer_start": [0]}
    path.write_text(json.dumps({"id": path.name, "context": "a b", "question": "what?", "answers": answers}))
    return path


def test_the_tasks_are_those_of_a_run() -> None:
    assert sorted(TASKS) == sorted(specification.TASKS)


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        *((task, task) for task in TASKS),
        ("SST-2", "sst2"),
        ("sst-2", "sst2"),
        ("STS-B", "stsb"),
        ("MNLI", "mnli"),
        ("CoLA", "cola"),
        ("SQuAD", "squad"),
        ("SQuAD 1.1", "squad"),
        ("squad2", "squad_v2"),
        ("squad-v2.0", "squad_v2"),
    ],
)
def test_published_spellings_of_tasks(spelled: str, name: str) -> None:
    assert canonical_task(spelled) == name


def test_an_unknown_task_is_met_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"task is 'qnly'; allowed are squad, .*; did you mean 'qnli'\?"):
        make_data_module("qnly", "embedded")


@pytest.mark.parametrize("source", [None, "embedded"])
def test_the_hub_and_the_embedded_data_are_no_folders(source: str | None) -> None:
    assert data_sources(source, "mnli") == data_sources(source, "squad") == (source, source)


def test_a_glue_folder_is_the_source_itself(tmp_path: Path) -> None:
    folder = str(write_glue(tmp_path / "glue", "mrpc"))
    assert data_sources(folder, "MRPC") == (folder, folder)
    (tmp_path / "glue" / "train.tsv").unlink()
    with pytest.raises(InputError, match=r"glue: this folder has no train\.tsv; .* it holds dev\.tsv\."):
        data_sources(folder, "mrpc")
    sources = data_sources(folder, "mrpc", need_train=False)
    assert sources == (folder, folder)
    data = make_data_module("mrpc", "embedded", *sources, cache_dir=str(tmp_path))
    assert len(data.tables("eval")[""]) == 400  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"no train\.tsv"):
        data.features("train")


@pytest.mark.parametrize(
    ("task", "train", "dev"),
    [
        ("squad", "train.json", "dev.json"),
        ("squad", "train-v1.1.json", "dev-v1.1.json"),
        ("squad2", "train-v2.0.json", "dev-v2.0.json"),
        ("squad_v2", "train.jsonl", "validation.jsonl"),
    ],
)
def test_questions_by_their_usual_names(task: str, train: str, dev: str, tmp_path: Path) -> None:
    files = [questions(tmp_path / name) for name in (train, dev)]
    # The other version's files, and others that only begin alike, are not taken for it.
    other = "2.0" if task == "squad" else "1.1"
    for name in (f"train-v{other}.json", f"dev-v{other}.json", "dev-predictions.json", "train.txt"):
        questions(tmp_path / name)
    sources = data_sources(str(tmp_path), task)
    assert sources == tuple(map(str, files))
    data = make_data_module(task, "embedded", *sources, cache_dir=str(tmp_path), max_seq_length=32, doc_stride=8)
    assert isinstance(data, SquadDataModule)
    assert [question.id for question in data.questions("train")] == [train]
    assert [question.id for question in data.questions("eval")] == [dev]


def test_missing_questions_are_told_with_what_is_there(tmp_path: Path) -> None:
    questions(tmp_path / "dev-v2.0.json")
    with pytest.raises(InputError) as raised:
        data_sources(str(tmp_path), "squad")
    assert raised.value.problems == [
        f"{tmp_path}: this folder has no train.json, train-v1.1.json or train.jsonl; one is needed to train squad, "
        f"and it holds dev-v2.0.json.",
        f"{tmp_path}: this folder has no dev.json, dev-v1.1.json or dev.jsonl; one is needed to evaluate squad, "
        f"and it holds dev-v2.0.json.",
    ]
    train, dev = data_sources(str(tmp_path), "squad_v2", need_train=False)
    assert dev == str(tmp_path / "dev-v2.0.json")
    with pytest.raises(InputError, match=r"train\.json: no such file"):
        make_data_module("squad_v2", "embedded", train, dev).features("train")


def test_questions_that_cannot_be_told_apart(tmp_path: Path) -> None:
    for name in ("train.json", "dev.json", "dev-v1.1.json"):
        questions(tmp_path / name)
    with pytest.raises(InputError, match=r"holds dev-v1\.1\.json and dev\.json, and which of them is meant"):
        data_sources(str(tmp_path), "squad")


def test_no_folder_and_a_file_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: there is no such folder; a folder with the data of sst2"):
        data_sources(str(tmp_path / "nowhere"), "sst2")
    path = questions(tmp_path / "dev.json")
    with pytest.raises(InputError, match=r"dev\.json: is a file; a folder with the data of squad is needed"):
        data_sources(str(path), "squad")


def test_one_text_for_both_splits_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "text.txt"
    path.write_text("a\n", encoding="utf-8")
    # Where nothing is calibrated there is nothing to tell.
    assert data_sources(str(path), "wikitext2", need_train=False) == (str(path), str(path))
    assert not caplog.records
    assert data_sources(str(path), "wikitext2") == (str(path), str(path))
    (told,) = (record.getMessage() for record in caplog.records)
    assert told.startswith(f"{path}: this one file is both what calibration draws from and what is evaluated;")


def test_modules_of_both_kinds_and_their_options() -> None:
    data = make_data_module("STS-B", "embedded", columns={"label": "gold"}, max_seq_length=40)
    assert isinstance(data, GlueDataModule)
    assert (data.task, data.max_seq_length, data.columns) == ("stsb", 40, {"label": "gold"})
    squad = make_data_module("squad2", "embedded", columns=None, doc_stride=5)
    assert isinstance(squad, SquadDataModule)
    assert (squad.version_2, squad.doc_stride) == (True, 5)
    with pytest.raises(InputError, match="columns are given, but squad has none; they are for mnli, "):
        make_data_module("squad", "embedded", columns={"label": "gold"})


@pytest.mark.real
def test_real_folders(shared: Path) -> None:
    folder = str(shared / "data" / "sst2")
    assert data_sources(folder, "SST-2") == (folder, folder)
    squad = shared / "data" / "squad"
    assert data_sources(str(squad), "squad") == (str(squad / "train.json"), str(squad / "dev.json"))
