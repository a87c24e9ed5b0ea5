"""What EXP IDs and overrides mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splora.errors import InputError
from splora.hparams.folders import folder_name
from splora.hparams.overrides import apply, parse
from splora.hparams.select import _runs, select
from splora.hparams.workbook import Workbook, read_workbook


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory, sheets: SimpleNamespace) -> Workbook:
    path = tmp_path_factory.mktemp("book") / "a.xlsx"
    rows = [{"exp_id": number, "train_file": None} for number in (3, 4, 5, 9)]
    return read_workbook(sheets.write(path, {"SQuAD": rows, "MNLI": [{"exp_id": 20}]}))


def ids(book: Workbook, words: list[str], sheet: str | None = None) -> list[object]:
    return [row.spec.exp_id for row in select(book, words, sheet)]


def test_numbers_ranges_and_lists(book: Workbook) -> None:
    assert ids(book, ["9", "3-5", "4,20"]) == [9, 3, 4, 5, 20]
    assert ids(book, ["row:3"], "SQuAD") == [4]


@pytest.mark.parametrize(
    ("words", "sheet", "sentence"),
    [
        (["6"], None, "has no EXP ID '6'; it has 3-5, 9, 20."),
        (["20"], "SQuAD", "has no EXP ID '20'; it has 3-5, 9."),
        (["4-6"], None, "has no EXP ID 6, which the range 4-6 asks for"),
        (["5-3"], None, "the range 5-3 runs backwards; write 3-5."),
        (["row:2"], None, "'row:2' fits 2 rows; choose one: '3' (sheet 'SQuAD', row 2), '20' (sheet 'MNLI', row 2)."),
        (["row:77"], None, "'row:77' names no row"),
    ],
)
def test_what_names_no_row(book: Workbook, words: list[str], sheet: str | None, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        select(book, words, sheet)
    assert sentence in caught.value.problems[0]


def test_all_wrong_ids_at_once(book: Workbook) -> None:
    with pytest.raises(InputError) as caught:
        select(book, ["6", "3", "7"])
    assert len(caught.value.problems) == 2


@given(st.sets(st.integers(1, 60), min_size=1))
def test_runs_name_exactly_the_numbers(numbers: set[int]) -> None:
    spans = [part.split("-") for part in _runs(sorted(numbers)).split(", ")]
    named = {number for span in spans for number in range(int(span[0]), int(span[-1]) + 1)}
    assert named == numbers


def test_folder_names_hold_nothing_a_file_system_refuses() -> None:
    assert folder_name(12) == "12"
    assert folder_name("row:5") == "row-5"
    assert folder_name("a_*_b/c 90.0%") == "a_-_b-c-90.0%"


def test_overrides_are_typed_and_name_their_option(book: Workbook) -> None:
    row = book.rows[0]
    changed = apply(row, parse(["num_train_epochs=2", "seed=7"], {"model_name_or_path": ("--model", "run:4")}))
    assert changed.problems == []
    assert (changed.spec.num_train_epochs, changed.spec.seed, changed.spec.model_name_or_path) == (2.0, 7, "run:4")
    assert row.spec.seed == 92


def test_scores_of_another_task_are_not_reported_for_this_one(book: Workbook) -> None:
    row = replace(book.rows[0], spec=replace(book.rows[0].spec, reported_f1=88.4, reported_density=30.0))
    assert apply(row, parse(["seed=7"], {})).spec.reported_f1 == 88.4
    other = apply(row, parse(["task=qnli", "reported_density=50"], {})).spec
    assert (other.task, other.reported_f1, other.reported_density) == ("qnli", None, 50.0)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("num_train_epoch=2", "--set num_train_epoch: 'num_train_epoch' is not a column of the workbook; did you mean"),
        ("num_train_epochs", "--set num_train_epochs: is not KEY=VALUE"),
        ("num_train_epochs=two", "--set num_train_epochs: is the text 'two'; a number is needed."),
        ("learning_rate=0,1", "--set learning_rate: is '0,1'; write the number with a point: 0.1."),
        ("exp_id=4", "--set exp_id: 'exp_id' names the row and cannot be set."),
        (
            "model_name_or_path=b",
            "--set model_name_or_path: model_name_or_path is given a second time, first by --model.",
        ),
    ],
)
def test_wrong_settings(setting: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        parse([setting], {"model_name_or_path": ("--model", "a")})
    assert caught.value.problems[0].startswith(sentence)


def test_settings_are_checked_with_the_row(book: Workbook, tmp_path: Path) -> None:
    settings = ["pruning_method=topk", "warmup_steps=1000000"]
    files = {"train_file": ("--train-file", str(tmp_path / "no.json")), "model_name_or_path": ("--model", "./no")}
    problems = apply(book.rows[0], parse(settings, files)).problems
    assert any(text.startswith("--set pruning_method: is 'topk'; allowed") for text in problems)
    assert any(text.startswith("--train-file: is") and "no such file" in text for text in problems)
    assert any(text.startswith("--model: is './no'; there is no such folder") for text in problems)
    too_long = apply(book.rows[0], parse(["warmup_steps=1000000"], {})).problems
    assert ["--set warmup_steps: is 1000000: the warm-ups take" in text for text in too_long] == [True]
