"""The project's own workbook."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from openpyxl import load_workbook

from splora.hparams.build import column_order, main, workbook_bytes
from splora.hparams.catalogue import catalogue
from splora.hparams.rows import COLUMNS
from splora.hparams.select import select
from splora.hparams.workbook import OWN, Workbook, read_workbook
from splora.training.specification import FIELDS


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workbook that the catalogue makes."""
    path = tmp_path_factory.mktemp("built") / "new" / "book.xlsx"
    main([str(path)])
    return path


@pytest.fixture(scope="module")
def own(built: Path) -> Workbook:
    return read_workbook(built)


def test_the_shipped_workbook_is_valid_whatever_a_person_edited() -> None:
    shipped = read_workbook(OWN)
    assert shipped.rows
    assert shipped.problems() == []


def test_the_same_rows_give_the_same_bytes(built: Path) -> None:
    assert built.read_bytes() == workbook_bytes()
    assert load_workbook(built).sheetnames == ["Demo", "SQuAD", "MNLI", "QQP", "Recipes", "Columns"]


def test_it_reads_back_to_its_catalogue(own: Workbook) -> None:
    assert own.problems() == []
    assert not [notice for row in own.rows for notice in row.notices]
    assert own.others == ("Columns",)
    for sheet in own.sheets:
        assert [row.spec for row in sheet.rows] == [spec for spec, _ in catalogue()[sheet.name]]


def test_exp_ids(own: Workbook) -> None:
    numbers = [row.spec.exp_id for row in own.rows]
    assert all(isinstance(number, int) for number in numbers)
    assert len(set(numbers)) == len(numbers)
    rows = select(own, ["12", "14-18"])
    assert {row.sheet for row in rows} == {"SQuAD"}
    assert len(rows) == 6
    assert own.sheet("SQuAD").rows[0].spec.exp_id == 11


def test_the_published_rows_are_there(own: Workbook) -> None:
    specs = [row.spec for row in own.sheet("SQuAD").rows if isinstance(row.spec.exp_id, int) and row.spec.exp_id <= 62]
    assert len([spec for spec in specs if 12 <= int(spec.exp_id) <= 46]) == 35
    splopa = [spec for spec in specs if int(spec.exp_id) > 46]
    assert len(splopa) == 16
    assert all(spec.adapter == "splopa" and (spec.reported_f1 or 0) > 10 for spec in splopa)
    assert all(1 < (spec.reported_density or 0) <= 100 for spec in specs)
    assert specs[0].reported_f1 == pytest.approx(88.0748307083071)
    assert {spec.schedule_total_steps for spec in specs[1:]} == {55_330}


def test_cells_are_typed_formatted_limited_and_frozen(built: Path) -> None:
    book = load_workbook(built)
    for name in ("Demo", "SQuAD", "MNLI", "QQP"):
        sheet = book[name]
        headings = {cell.value: cell.column for cell in sheet[2]}
        assert set(COLUMNS) < set(headings)
        assert sheet.freeze_panes == "C3"
        rate = sheet.cell(3, headings["learning_rate"])
        assert isinstance(rate.value, float)
        assert rate.number_format == "0.##E+00"
        limited = {str(rule.sqref).split("3:")[0] for rule in sheet.data_validations.dataValidation}
        for column in ("pruning_method", "splopa_shared_prototypes", "learning_rate", "exp_id", "dropout", "task"):
            assert sheet.cell(3, headings[column]).column_letter in limited
        for rule in sheet.data_validations.dataValidation:
            assert len(str(rule.formula1)) <= 255
    assert {row[1].value for row in book["Columns"].iter_rows(min_row=3)} == set(COLUMNS)


def test_groups_stay_together() -> None:
    groups = [FIELDS[name].metadata["group"] for name in column_order()]
    assert len(list(itertools.groupby(groups))) == len(set(groups))
    assert set(column_order()) == set(COLUMNS)
