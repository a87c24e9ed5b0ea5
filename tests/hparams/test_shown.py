"""A sheet is read as Excel shows it, or refused by cell: formats, merged ranges, headings, hidden rows."""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import load_workbook
from openpyxl.cell import Cell
from openpyxl.worksheet.worksheet import Worksheet

from splora.hparams.cells import Unfit, from_cell
from splora.hparams.grid import Formatted, Grid, Unreadable, coordinate
from splora.hparams.number_formats import shown, shows_text
from splora.hparams.rows import COLUMNS, read_sheet
from splora.hparams.workbook import OWN, Workbook, read_workbook
from splora.training.specification import RunSpecification

SHEET = "SQuAD"


def changed(path: Path, change: Any) -> Workbook:
    """The workbook at `path`, its sheet changed by `change(sheet)`, read again."""
    book = load_workbook(path)
    change(book[SHEET])
    book.save(path)
    return read_workbook(path)


@pytest.fixture
def three(tmp_path: Path, sheets: SimpleNamespace) -> Path:
    """A workbook of three rows, 2 to 4, that prune with an adapter."""
    adapter = {
        "adapter": "splopa",
        "num_splopa_prototypes": 4,
        "splopa_prototype_rank": 2,
        "splopa_init_range": 0.01,
    }
    rows = [{"exp_id": number, "reported_f1": None, **adapter} for number in (1, 2, 3)]
    return Path(sheets.write(tmp_path / "a.xlsx", {SHEET: rows}, (*sheets.columns, "reported_f1", "dropout")))


@pytest.mark.parametrize(
    ("number", "number_format", "value", "is_percent"),
    [
        (0.5, "General", 0.5, False),
        (0.5, "0%", 0.5, True),
        (0.123, "0.0%", 0.123, True),
        (0.1234, "0.00E+00", 0.123, False),
        (3e-5, "0.##E+00", 3e-5, False),
        (5e-324, "0.00E+00", 4.94e-324, False),
        (1234.5, "#,##0.00", 1234.5, False),
        (-2.5, "0.0;(0.0)", -2.5, False),
        (-2.5, "0.0;[Red]-0.0", -2.5, False),
        (0, '_-* #,##0.00_-;-* #,##0.00_-;_-* "-"??_-;_-@_-', 0, False),
        (7, '_-* #,##0.00_-;-* #,##0.00_-;_-* "-"??_-;_-@_-', 7, False),
        (0.5, "# ?/?", 0.5, False),
        (0.25, "[$-409]0.00", 0.25, False),
        (12, "@", 12, False),
        (0.5, "0", 0, False),
    ],
)
def test_numbers_that_are_shown(number: float, number_format: str, value: float, is_percent: bool) -> None:
    look = shown(number, number_format)
    assert (look.problem, look.value, look.is_percent) == ("", pytest.approx(value, rel=1e-9), is_percent)


@pytest.mark.parametrize(
    ("number", "number_format", "why"),
    [
        (5000, "0.0,", "in thousands"),
        (5e6, "0,,", "in thousands"),
        (5000, '0.0,"k"', "in thousands"),
        (0.5, ";;;", "is hidden"),
        (0.5, ";", "is hidden"),
        (-1, "0;", "is hidden"),
        (0, "0.0;-0.0;", "is hidden"),
        (50, '0"%"', "more than the number"),
        (50, "0\\%", "more than the number"),
        (0.5, "0%%", "more than once"),
        (3, '0"e5"', "more than the number"),
        (3, '0"e-5"', "changes its sign"),
        (3, '"topK"', "no digits"),
        (3, "-0", "changes its sign"),
        (-3, "0.0;0.0", "changes its sign"),
        (3, "[>2]0.0;0", "depends on conditions"),
        (3, '"1"0', "more than the number"),
        (3, "10", "more than the number"),
        (3, "[$€-407]0.0", "more than the number"),
    ],
)
def test_numbers_that_look_like_others(number: float, number_format: str, why: str) -> None:
    assert why in shown(number, number_format).problem
    with pytest.raises(Unfit, match="set the cell's format to General"):
        from_cell("final_lambda", Formatted(number, number_format))


@given(
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.text(st.sampled_from('0#?.,%;E+-/@"[]_*\\()GeneralRedab 1<=>'), max_size=12),
)
def test_any_format_is_refused_or_near_what_it_shows(number: float, number_format: str) -> None:
    try:
        value = from_cell("reported_f1", Formatted(number, number_format))
        setting = from_cell("mask_scale", Formatted(number, number_format))
    except Unfit:
        return
    assert setting == number
    assert value == (pytest.approx(100 * number) if shown(number, number_format).is_percent else number)
    shows_text(number_format)


@pytest.mark.parametrize(
    ("field", "value", "number_format", "read"),
    [
        ("reported_f1", 0.5, "0%", 50.0),
        ("reported_f1", 0.885, "0.0%", 88.5),
        ("reported_f1", 88.54, "0.0", 88.54),
        ("final_threshold", 0.5, "0%", 0.5),
        ("dropout", 0.15, "0.0%", 0.15),
        ("learning_rate", 3e-5, "0.003%", None),
        ("learning_rate", 3e-5, "0.0000%", 3e-5),
        ("learning_rate", 3e-5, "0.00", None),
        ("final_threshold", 0.5, "0", None),
        ("num_train_epochs", 3, "0.0,", None),
        ("num_train_epochs", 3, ";;;", None),
        ("num_train_epochs", 3, "d mmm", None),
        ("num_train_epochs", 3, "[h]:mm", None),
        ("per_gpu_train_batch_size", 16, "0%", None),
        ("per_gpu_train_batch_size", 16, "@", 16),
        ("exp_id", 7, "00", 7),
        ("exp_id", 7, '"1"0', None),
        ("exp_id", 7, "0%", None),
        ("pruning_method", "topK", ";;;", None),
        ("pruning_method", "topK", '0;0;0;"l0"', None),
        ("pruning_method", "topK", "0.00", "topK"),
        ("adapter", "splopa", "@", "splopa"),
        ("splopa_shared_prototypes", 0, '"TRUE";"TRUE";"FALSE"', False),
        ("splopa_shared_prototypes", True, ";;;", True),
    ],
)
def test_a_cell_is_what_it_shows(three: Path, field: str, value: Any, number_format: str, read: Any) -> None:
    def change(sheet: Worksheet) -> None:
        cell = sheet.cell(3, [c.value for c in sheet[1]].index(field) + 1)
        cell.value, cell.number_format = value, number_format

    book = changed(three, change)
    row = book.rows[1]
    if read is None:
        (problem,) = book.problems()
        assert problem.startswith(f"{three}, sheet '{SHEET}', cell {row.cells[field]} ({field}): ")
    else:
        assert book.problems() == []
        assert getattr(row.spec, field) == read


def test_a_range_merged_over_rows_is_the_value_of_each(three: Path) -> None:
    def change(sheet: Worksheet) -> None:
        for name in ("pruning_method", "adapter", "num_splopa_prototypes", "reported_f1"):
            letter = next(cell.column_letter for cell in sheet[1] if cell.value == name)
            if name == "reported_f1":
                sheet[f"{letter}2"] = 80.5
            sheet.merge_cells(f"{letter}2:{letter}9")

    book = changed(three, change)
    assert book.problems() == []
    assert {(r.spec.pruning_method, r.spec.adapter, r.spec.num_splopa_prototypes) for r in book.rows} == {
        ("topK", "splopa", 4)
    }
    assert [r.spec.reported_f1 for r in book.rows] == [80.5] * 3


def test_a_merged_formula_without_a_value_is_refused_in_each_row(three: Path) -> None:
    def change(sheet: Worksheet) -> None:
        sheet["H2"] = '="to"&"pK"'
        sheet.merge_cells("H2:H4")

    assert [f"cell H{n} " in p for n, p in zip((2, 3, 4), changed(three, change).problems(), strict=True)] == [True] * 3


def test_a_range_merged_over_columns_is_refused_by_cell(three: Path) -> None:
    problems = changed(three, lambda sheet: sheet.merge_cells("H3:I4")).problems()
    assert {p.split("cell ")[1].split(" ")[0] for p in problems} == {"H3", "I3", "H4", "I4"} - {"H4", "I4"} | {
        "H4",
        "I4",
    }
    assert all("is part of the merged cells H3:I4" in problem for problem in problems)
    headings = changed(three, lambda sheet: sheet.merge_cells("F1:G1")).problems()
    assert any("cell F1: is part of the merged cells F1:G1" in problem for problem in headings)


HEADINGS = (None, "#REF!", "#N/A", "#NAME?", "Err:502", 3, True, "unknown", "Learning rate", Unreadable("is bad"))


@pytest.mark.parametrize("name", COLUMNS)
def test_no_column_is_dropped_in_silence(name: str) -> None:
    spec = read_own()
    values = {column: getattr(spec, field) or 1 for column, field in enumerate(COLUMNS, start=1)}
    for heading in HEADINGS:
        titles = {column: field if field != name else heading for column, field in enumerate(COLUMNS, start=1)}
        shown_titles = {column: title for column, title in titles.items() if title is not None}
        sheet = read_sheet(Path("a.xlsx"), Grid(SHEET, {1: shown_titles, 2: values, 3: values}))
        assert sheet is not None
        place = f"sheet '{SHEET}', cell {coordinate(1, COLUMNS.index(name) + 1)}: "
        assert sum(place in problem for problem in sheet.problems) == 1, (heading, sheet.problems)


@functools.cache
def read_own() -> RunSpecification:
    return read_workbook(OWN).sheet("SQuAD").rows[-1].spec


@pytest.mark.parametrize("heading", [None, "#REF!", "=A1", 3, "unknown"])
def test_headings_of_a_file(three: Path, heading: Any) -> None:
    def change(sheet: Worksheet) -> None:
        sheet["R1"] = heading

    problems = changed(three, change).problems()
    assert sum("cell R1: " in problem for problem in problems) == 1, problems


def test_error_values_are_told_by_cell(three: Path) -> None:
    def change(sheet: Worksheet) -> None:
        sheet["H2"], sheet["H3"], sheet["M4"] = "#REF!", "#N/A", "#DIV/0!"

    problems = changed(three, change).problems()
    assert [("cell H2" in p, "#REF!" in p) for p in problems[:1]] == [(True, True)]
    assert ["holds Excel's error" in problem for problem in problems] == [True] * 3


def test_hidden_rows_are_read_and_known(three: Path) -> None:
    def change(sheet: Worksheet) -> None:
        sheet.row_dimensions[3].hidden = True
        sheet.row_dimensions[4].hidden = True
        sheet.column_dimensions["B"].hidden = True

    book = changed(three, change)
    assert [row.is_hidden for row in book.rows] == [False, True, True]
    assert "column B (model): is hidden, but it is read." in book.sheets[0].notices[0]


def test_a_remark_is_no_run(three: Path) -> None:
    def change(sheet: Worksheet) -> None:
        sheet["A5"] = "below: not yet checked"
        sheet["D6"] = "or this"
        sheet.merge_cells("A5:G5")

    book = changed(three, change)
    assert (len(book.rows), book.problems()) == (3, [])
    assert ["row 5: is no run" in notice for notice in book.sheets[0].notices] == [True, False]


def test_what_a_merged_range_covers_is_not_read(three: Path) -> None:
    place = next(cell.column for cell in load_workbook(three)[SHEET][1] if cell.value == "dropout")

    def change(sheet: Worksheet) -> None:
        sheet.merge_cells(start_row=2, end_row=4, start_column=place, end_column=place)
        sheet._cells[3, place] = Cell(sheet, 3, place, 0.5)  # as programs leave it that keep what is hidden

    book = changed(three, change)
    assert (book.problems(), [row.spec.dropout for row in book.rows]) == ([], [None] * 3)


def test_a_fraction_of_a_number_without_end_is_no_traceback() -> None:
    assert shown(1e308, "# ?/8").value == 1e308
