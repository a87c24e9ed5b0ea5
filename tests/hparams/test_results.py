"""One line per run, in two files that survive each other's trouble."""

from __future__ import annotations

import csv
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from openpyxl import load_workbook

from splora.hparams.results import record, record_all
from splora.training.specification import RunSpecification

SPEC = RunSpecification(exp_id=12, sheet="SQuAD", model="=a row", pruning_method="topK", reported_f1=80.5)


def result(f1: float, **metrics: float) -> dict[str, Any]:
    return {"metrics": {"exact_match": 60.0, "f1": f1, **metrics}, "remaining_weights_percent": 50.25, "seconds": 2.5}


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def table(folder: Path) -> list[dict[str, Any]]:
    rows = list(load_workbook(folder / "results.xlsx")["Results"].values)
    return [dict(zip([str(name) for name in rows[0]], row, strict=True)) for row in rows[1:]]


def test_a_line_is_added_and_replaced(tmp_path: Path) -> None:
    assert record(SPEC, result(70.0), "runs/SQuAD/12", tmp_path) == []
    assert record(SPEC, result(71.0), "runs/SQuAD/12", tmp_path) == []
    assert record(SPEC, result(72.0), "runs/try", tmp_path) == []
    assert [line["f1"] for line in lines(tmp_path)] == ["71.0", "72.0"]
    first = table(tmp_path)[0]
    assert (first["reported_f1"], first["f1"], first["exp_id"], first["method"]) == (80.5, 71.0, 12, "topK")
    assert first["model"] == "=a row"
    assert first["adapter_bytes"] is None
    sheet = load_workbook(tmp_path / "results.xlsx")["Results"]
    assert sheet.freeze_panes == "C2"
    headings = [cell.value for cell in sheet[1]]
    assert headings.index("f1") == headings.index("reported_f1") + 1
    assert sheet.cell(2, headings.index("f1") + 1).number_format == "0.00"


def test_scores_below_the_published_ones_are_coloured(tmp_path: Path) -> None:
    def colours() -> list[str]:
        sheet = load_workbook(tmp_path / "results.xlsx")["Results"]
        column = [cell.value for cell in sheet[1]].index("f1") + 1
        cells = [sheet.cell(number, column) for number in range(2, sheet.max_row + 1)]
        return [str(cell.fill.start_color.rgb) if cell.fill.fill_type else "" for cell in cells]

    record_all([(SPEC, result(f1), f"run{f1}") for f1 in (70.0, 80.0, 80.5)], tmp_path)
    far, little, none = colours()
    assert far not in ("", little)
    assert little != ""
    assert none == ""
    record(SPEC, result(81.0), "run70.0", tmp_path)
    assert colours() == ["", little, ""]


def test_columns_and_sheets_of_others_are_kept(tmp_path: Path) -> None:
    record(SPEC, result(70.0), "a", tmp_path)
    book = load_workbook(tmp_path / "results.xlsx")
    sheet = book["Results"]
    column = sheet.max_column + 1
    sheet.cell(1, column, "my note")
    sheet.cell(2, column, "good")
    sheet.insert_rows(2)
    sheet.cell(2, 1, "a line of mine")
    book.create_sheet("Mine")["A1"] = 5
    book.save(tmp_path / "results.xlsx")
    record(SPEC, result(71.0, loss=0.5), "a", tmp_path)
    record(SPEC, result(72.0), "b", tmp_path)
    rows = table(tmp_path)
    assert [row["sheet"] for row in rows] == ["a line of mine", "SQuAD", "SQuAD"]
    assert (rows[1]["my note"], rows[1]["f1"], rows[1]["loss"], rows[2]["my note"]) == ("good", 71.0, 0.5, None)
    assert load_workbook(tmp_path / "results.xlsx")["Mine"]["A1"].value == 5


def test_an_open_or_broken_workbook_is_left_and_catches_up(tmp_path: Path) -> None:
    record(SPEC, result(70.0), "a", tmp_path)
    lock = tmp_path / "~$results.xlsx"
    lock.touch()
    (said,) = record(SPEC, result(71.0), "b", tmp_path)
    assert "is open in Excel" in said
    assert "results.csv" in said
    assert "next run" in said
    assert (len(table(tmp_path)), len(lines(tmp_path))) == (1, 2)
    lock.unlink()
    record(SPEC, result(72.0), "c", tmp_path)
    assert [row["f1"] for row in table(tmp_path)] == [70.0, 71.0, 72.0]
    (tmp_path / "results.xlsx").write_bytes(b"broken")
    (said,) = record(SPEC, result(73.0), "d", tmp_path)
    assert "cannot be read as a workbook" in said
    assert (tmp_path / "results.xlsx").read_bytes() == b"broken"


def test_runs_that_end_together_lose_no_line(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda number: record(SPEC, result(number), f"run{number}", tmp_path), range(8)))
    assert said == [[]] * 8
    assert sorted(line["run"] for line in lines(tmp_path)) == [f"run{number}" for number in range(8)]
    assert len(table(tmp_path)) == 8


def test_hostile_tables_of_results_are_left_as_they_are(tmp_path: Path) -> None:
    record(SPEC, result(70.0), "a", tmp_path)
    path = tmp_path / "results.xlsx"
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in parts.items():
            merged = b'<mergeCells count="1"><mergeCell ref="A1:XFD1048576"/></mergeCells>'
            new.writestr(name, data.replace(b"</sheetData>", b"</sheetData>" + merged))
    before = path.read_bytes()
    (said,) = record(SPEC, result(71.0), "b", tmp_path)
    assert "has merged ranges over 17,179,869,184 cells and was left as it is" in said
    assert path.read_bytes() == before
    for seed in (1, 2):
        record(SPEC, result(1e308), f"runs/seed-{seed}", tmp_path)
