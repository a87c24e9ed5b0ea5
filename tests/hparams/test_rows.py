"""The project's layout: every kind of wrong cell is one sentence that names file, sheet and cell."""

from __future__ import annotations

import datetime
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from splora.errors import InputError
from splora.hparams.cells import Unfit, from_text
from splora.hparams.workbook import read_workbook


def problems(path: Path) -> list[str]:
    return read_workbook(path).problems()


def test_a_good_row_is_typed_and_knows_its_cells(tmp_path: Path, sheets: SimpleNamespace) -> None:
    path = sheets.write(
        tmp_path / "a.xlsx", {"SQuAD": [{"num_train_epochs": 2.5, "max_steps": 4000.0, "train_file": " a "}]}
    )
    book = read_workbook(path)
    (row,) = book.rows
    assert book.problems() == []
    assert (row.spec.sheet, row.spec.num_train_epochs, row.spec.train_file) == ("SQuAD", 2.5, "a")
    assert row.spec.max_steps == 4000
    assert isinstance(row.spec.max_steps, int)
    assert isinstance(row.spec.initial_threshold, float)
    assert row.spec.splopa_shared_prototypes is True
    assert row.cells["pruning_method"] == sheets.cell_of("pruning_method")
    assert row.number == 2


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("learning_rate", "fast", "is the text 'fast'; a number is needed."),
        ("learning_rate", "3e-5", "is '3e-5' stored as text; type the number again in a cell of format General."),
        ("final_threshold", "0,9", "is '0,9'; write the number with a point: 0.9."),
        ("final_threshold", "90%", "is the text '90%'; a number without a percent sign is needed."),
        ("learning_rate", None, "is empty; every row needs it."),
        ("learning_rate", "  ", "is empty; every row needs it."),
        ("learning_rate", "null", "is empty; every row needs it."),
        ("final_threshold", "-", "is empty; pruning by topK needs it."),
        ("mask_init", None, "is empty; topK learns mask scores."),
        ("learning_rate", "=3*1e-5", "holds a formula without a computed value; type the value"),
        ("max_steps", "=10*4", "holds a formula without a computed value; type the value"),
        ("pruning_method", "topk", "is 'topk'; allowed are none, magnitude, topK"),
        ("pruning_method", "topk", "did you mean 'topK'?"),
        ("mask_init", "constnat", "did you mean 'constant'?"),
        ("regularization", "l3", "allowed are none, l0, l1"),
        ("adapter", "splop", "did you mean 'splopa'?"),
        ("adapter", 3, "is 3; a text is needed."),
        ("task", "sqad", "did you mean 'squad'?"),
        ("learning_rate", True, "is TRUE; a number is needed."),
        ("per_gpu_train_batch_size", 16.5, "is 16.5; a whole number is needed."),
        ("per_gpu_train_batch_size", 0, "is 0; at least 1 is needed."),
        ("learning_rate", 0, "is 0.0; more than 0 is needed."),
        ("final_threshold", datetime.datetime(2024, 9, 1), "is the date or time 2024-09-01 00:00:00"),
        ("final_threshold", 1.2, "is 1.2; topK takes a fraction of blocks above 0 and up to 1."),
        ("warmup_steps", 90_000, "longer than the run's"),
        ("splopa_shared_prototypes", "maybe", "is 'maybe'; TRUE or FALSE is needed."),
        ("exp_id", "7", "is '7' stored as text"),
        ("exp_id", 1.5, "is 1.5; a whole number from 1 is needed."),
        ("exp_id", None, "is empty; every row needs it."),
        ("model_name_or_path", "run:99", "is 'run:99'; the workbook has no row with EXP ID 99."),
        ("teacher_name_or_path", "run:1", "is 'run:1', which leads back to this row itself."),
    ],
)
def test_one_wrong_cell_is_one_sentence(
    tmp_path: Path, sheets: SimpleNamespace, field: str, value: Any, sentence: str
) -> None:
    path = sheets.write(tmp_path / "a.xlsx", {"SQuAD": [{"teacher_name_or_path": None, field: value}]})
    book = read_workbook(path)
    found = [text for text in book.problems() if "alpha" not in text]
    assert len(found) == 1, found
    assert found[0].startswith(f"{path}, sheet 'SQuAD', cell {sheets.cell_of(field)} ({field}): ")
    assert sentence in found[0]


def test_excel_errors_are_named(tmp_path: Path, sheets: SimpleNamespace) -> None:
    path = sheets.write(tmp_path / "a.xlsx", {"SQuAD": [{"learning_rate": "#DIV/0!"}]})
    assert "holds Excel's error #DIV/0!" in problems(path)[0]


def test_a_computed_formula_is_its_value(tmp_path: Path, sheets: SimpleNamespace) -> None:
    path = sheets.write(tmp_path / "a.xlsx", {"SQuAD": [{"num_train_epochs": "=1+1"}]})
    computed = tmp_path / "b.xlsx"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(computed, "w") as new:
        for name in old.namelist():
            new.writestr(
                name,
                old.read(name)
                .replace(b"<f>1+1</f><v />", b"<f>1+1</f><v>2</v>")
                .replace(b"<f>1+1</f><v></v>", b"<f>1+1</f><v>2</v>"),
            )
    assert problems(computed) == []
    assert read_workbook(computed).rows[0].spec.num_train_epochs == 2


def test_all_problems_at_once_without_guesses_that_follow_from_them(tmp_path: Path, sheets: SimpleNamespace) -> None:
    rows = [{"pruning_method": "topk", "regularization": "l1", "final_lambda": 1}, {"exp_id": 2, "learning_rate": "x"}]
    found = problems(sheets.write(tmp_path / "a.xlsx", {"SQuAD": rows}))
    assert [("pruning_method" in text, "learning_rate" in text) for text in found] == [(True, False), (False, True)]


def test_warm_ups_are_not_judged_by_a_batch_size_that_cannot_be_read(tmp_path: Path, sheets: SimpleNamespace) -> None:
    rows = [{"per_gpu_train_batch_size": "x", "warmup_steps": 90_000}]
    (found,) = problems(sheets.write(tmp_path / "a.xlsx", {"SQuAD": rows}))
    assert "(per_gpu_train_batch_size)" in found


def test_repeated_ids_are_found_over_sheets_and_both_cells_named(tmp_path: Path, sheets: SimpleNamespace) -> None:
    path = sheets.write(tmp_path / "a.xlsx", {"SQuAD": [{}], "MNLI": [{"exp_id": 2}, {"exp_id": 1}]})
    (found,) = problems(path)
    assert found.startswith(f"{path}, sheet 'MNLI', cell A3 (exp_id): is 1, as is sheet 'SQuAD', cell A2;")


def test_headings_are_checked(tmp_path: Path, sheets: SimpleNamespace) -> None:
    headings = [name for name in sheets.columns if name != "warmup_steps"]
    headings += ["learning_rat", "pruning_method", "# my notes"]
    found = problems(sheets.write(tmp_path / "a.xlsx", {"SQuAD": [{}]}, headings))
    assert len(found) == 3, found
    assert "'learning_rat' is not a column; did you mean 'learning_rate'?" in found[0]
    assert "the column pruning_method stands there a second time, first in H1" in found[1]
    assert "the column warmup_steps is missing." in found[2]


def test_rows_that_lead_to_each_other_are_refused(tmp_path: Path, sheets: SimpleNamespace) -> None:
    rows = [{"model_name_or_path": "run:2"}, {"exp_id": 2, "model_name_or_path": "run:1"}]
    assert len(problems(sheets.write(tmp_path / "a.xlsx", {"SQuAD": rows}))) == 2


def test_blank_rows_and_pages_of_text_are_passed_over(tmp_path: Path, sheets: SimpleNamespace) -> None:
    from openpyxl import load_workbook

    path = sheets.write(tmp_path / "a.xlsx", {"SQuAD": [{}]})
    book = load_workbook(path)
    book["SQuAD"].cell(5, 1, "   ")
    book.create_sheet("Notes").append(["learning_rate", "is the rate"])
    book.save(path)
    read = read_workbook(path)
    assert read.problems() == []
    assert (len(read.rows), read.others) == (1, ("Notes",))
    with pytest.raises(InputError, match="sheet 'Notes': holds no runs"):
        read.sheet("Notes")
    with pytest.raises(InputError, match=r"no sheet 'squat'.*did you mean 'SQuAD'\?"):
        read.sheet("squat")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("learning_rate", "3e-5", 3e-5),
        ("max_steps", "100", 100),
        ("max_steps", "", None),
        ("warmup_steps", "1e3", 1000),
        ("splopa_shared_prototypes", "false", False),
        ("regularization", "none", "none"),
        ("train_file", "None", None),
    ],
)
def test_texts_of_set_are_typed(name: str, text: str, value: Any) -> None:
    typed = from_text(name, text)
    assert typed == value
    assert type(typed) is type(value)


@pytest.mark.parametrize(("name", "text"), [("learning_rate", "0,1"), ("warmup_steps", "1.5"), ("warmup_steps", "")])
def test_texts_of_set_are_refused(name: str, text: str) -> None:
    with pytest.raises(Unfit):
        from_text(name, text)
