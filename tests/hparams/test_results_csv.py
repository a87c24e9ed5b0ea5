"""The table of results after other programs had it: nothing garbled, nothing lost, and no sweep ended by it."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import load_workbook

from splora.errors import InputError
from splora.files import write_json
from splora.hparams.results import COLUMNS, record
from splora.hparams.results_csv import escaped, read_table, unescaped, write_table
from splora.launch import run_row
from splora.training.specification import RunSpecification

TEXTS = ("sheet", "exp_id", "run", "model")
SPEC = RunSpecification(exp_id=12, sheet="SQuAD", model="größer – ‘x’; 1,5", pruning_method="topK")
RESULT: dict[str, Any] = {"metrics": {"f1": 70.5}, "seconds": 2.5, "remaining_weights_percent": 50.25}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def saved(encoding: str, delimiter: str, end: str, comma: bool) -> Callable[[bytes], bytes]:
    """The table as another program saves it."""

    def save(content: bytes) -> bytes:
        found = csv.reader(io.StringIO(content.decode("utf-8"), newline=""))
        text = io.StringIO()
        writer = csv.writer(text, delimiter=delimiter, lineterminator=end)
        for row in found:
            writer.writerow(
                [cell.replace(".", ",") if comma and cell.replace(".", "").isdigit() else cell for cell in row]
            )
        return text.getvalue().encode(encoding)

    return save


SAVED = {
    "Excel, CSV UTF-8": saved("utf-8-sig", ",", "\r\n", False),
    "Excel, CSV UTF-8, German": saved("utf-8-sig", ";", "\r\n", True),
    "Excel, CSV": saved("cp1252", ",", "\r\n", False),
    "Excel, CSV, German": saved("cp1252", ";", "\r\n", True),
    "Excel, Unicode text": saved("utf-16", "\t", "\r\n", False),
    "UTF-16 without a mark": saved("utf-16-le", "\t", "\r\n", False),
    "UTF-16, big end first": saved("utf-16-be", ",", "\n", False),
    "an old Mac": saved("utf-8", ",", "\r", False),
    "a line that names the delimiter": lambda content: b"sep=;\r\n" + saved("utf-8", ";", "\r\n", False)(content),
}


@pytest.mark.parametrize("program", SAVED)
def test_a_table_that_another_program_saved_loses_and_garbles_nothing(tmp_path: Path, program: str) -> None:
    for number in (12, 13):
        record(SPEC, RESULT | {"metrics": {"f1": number + 0.5}}, f"runs/{number}", tmp_path)
    before = rows(tmp_path)
    path = tmp_path / "results.csv"
    path.write_bytes(SAVED[program](path.read_bytes()))
    found = path.read_bytes()
    notices = record(SPEC, RESULT, "runs/14", tmp_path)
    assert rows(tmp_path)[:2] == before
    assert [row["f1"] for row in rows(tmp_path)] == ["12.5", "13.5", "70.5"]
    assert [row["model"] for row in rows(tmp_path)] == [SPEC.model] * 3
    sheet = load_workbook(tmp_path / "results.xlsx")["Results"]
    assert [row[COLUMNS.index("f1")] for row in sheet.iter_rows(min_row=2, values_only=True)] == [12.5, 13.5, 70.5]
    if "Excel, CSV" in program and "UTF" not in program:  # guessed: the file is kept as it was
        assert "results.before-1.csv is as it was before" in notices[0]
        assert (tmp_path / "results.before-1.csv").read_bytes() == found
    else:
        assert notices == []


@pytest.mark.parametrize(
    "content", [b"\x00\x01\xff", b"a,b\n1,2\n", b"PK\x03\x04zip", b'"sheet,exp_id,run\n1,2,3', b"\xff\xfea"]
)
def test_what_is_no_table_is_put_aside_and_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "results.csv").write_bytes(content)
    (tmp_path / "results.before-1.csv").write_text("an older one")
    (said,) = record(SPEC, RESULT, "runs/12", tmp_path)
    assert "was renamed results.before-2.csv and a new table begun" in said
    assert (tmp_path / "results.before-2.csv").read_bytes() == content
    assert (tmp_path / "results.before-1.csv").read_text() == "an older one"
    assert [row["run"] for row in rows(tmp_path)] == ["runs/12"]


def test_cells_without_a_heading_and_columns_of_others_are_kept(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("sheet,exp_id,run,note,,note\nS,1,a,007,x,y,z\nS,2\n", encoding="utf-8")
    assert record(SPEC, RESULT, "b", tmp_path) == []
    first, second, third = rows(tmp_path)
    kept = {"note": "007", "column 5": "x", "note (column 6)": "y", "column 7": "z"}
    assert {name: first[name] for name in kept} == kept
    assert (second["exp_id"], second["run"], third["run"]) == ("2", "", "b")
    sheet = load_workbook(tmp_path / "results.xlsx")["Results"]
    assert "007" in [cell.value for cell in sheet[2]]


@given(st.text(st.sampled_from("'=+-@\t\r\n＝1e.;, \"ä"), max_size=6))
def test_no_text_is_a_formula_and_every_text_comes_back(text: str) -> None:
    assert unescaped(escaped(text)) == text
    assert not escaped(text).startswith(tuple("=@\t\r\n＝")) or not text
    if escaped(text)[:1] in ("+", "-"):
        float(text)


@settings(max_examples=40)
@given(st.lists(st.lists(st.text(max_size=5), min_size=3, max_size=3), max_size=4))
def test_a_table_comes_back_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]]) -> None:
    path = tmp_path_factory.mktemp("table") / "results.csv"
    names = ("sheet", "exp_id", "run")
    lines = [dict(zip(names, row, strict=True)) for row in cells]
    write_table(path, lines, names)
    assert read_table(path, TEXTS).lines == [line for line in lines if any(line.values())]


def test_formulas_in_names_and_values_reach_neither_file(tmp_path: Path) -> None:
    evil = RunSpecification(exp_id="=1+1", sheet="@SUM(A1)", model="=cmd|'/c calc'!A1")
    for _ in range(2):
        assert record(evil, RESULT | {"metrics": {"=f1": 1.0, "f1": float("nan")}}, "-r", tmp_path) == []
    (row,) = rows(tmp_path)
    assert (row["exp_id"], row["sheet"], row["model"]) == ("'=1+1", "'@SUM(A1)", "'=cmd|'/c calc'!A1")
    assert "'=f1" in row
    sheet = load_workbook(tmp_path / "results.xlsx")["Results"]
    assert {cell.data_type for row in sheet for cell in row} <= {"s", "n"}
    assert sheet.max_row == 2


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"metrics": []},
        {"metrics": {"f1": "x"}},
        {"seconds": [1], "adapter_bytes": {}},
        {"task": "\ud800\x01", "seed": 10**400},
    ],
)
def test_a_result_of_another_shape_ends_nothing(tmp_path: Path, result: dict[str, Any]) -> None:
    assert record(SPEC, result, "a", tmp_path) == []
    assert record(SPEC, RESULT, "b", tmp_path) == []
    assert [row["run"] for row in rows(tmp_path)] == ["a", "b"]
    load_workbook(tmp_path / "results.xlsx")


def repacked(path: Path, part: str, change: Callable[[bytes], bytes]) -> None:
    """The workbook with one of its parts changed."""
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    parts[part] = change(parts[part])
    with zipfile.ZipFile(path, "w") as new:
        for name, content in parts.items():
            new.writestr(name, content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:900]),
        lambda path: path.write_bytes(b""),
        lambda path: repacked(path, "xl/worksheets/sheet1.xml", lambda text: text[: len(text) // 2]),
        lambda path: repacked(path, "xl/workbook.xml", lambda text: text.replace(b"<sheets>", b"<sheet>")),
        lambda path: repacked(path, "xl/styles.xml", lambda _: b"\xff"),
        lambda path: repacked(path, "[Content_Types].xml", lambda _: b"<a/>"),
        lambda path: path.write_bytes(
            bytes(byte ^ 255 if 400 < at < 500 else byte for at, byte in enumerate(path.read_bytes()))
        ),
    ],
)
def test_a_damaged_workbook_is_left_and_told(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    record(SPEC, RESULT, "a", tmp_path)
    damage(tmp_path / "results.xlsx")
    before = (tmp_path / "results.xlsx").read_bytes()
    said = record(SPEC, RESULT, "b", tmp_path)
    assert [row["run"] for row in rows(tmp_path)] == ["a", "b"]
    assert said
    assert "was left as it is" in said[0]
    assert (tmp_path / "results.xlsx").read_bytes() == before


def test_what_other_commands_are_writing_stays(tmp_path: Path) -> None:
    others = [tmp_path / ".x.0123abcd.tmp" / "model.safetensors", tmp_path / ".y.0123abcd.old" / "a"]
    for other in others:
        other.parent.mkdir()
        other.touch()
    (tmp_path / ".results.csv.0123abcd.tmp").touch()
    record(SPEC, RESULT, "a", tmp_path)
    assert all(other.exists() for other in others)
    assert not (tmp_path / ".results.csv.0123abcd.tmp").exists()


@pytest.mark.parametrize("in_the_way", ["runs", "runs/results.csv/", "runs/.results.lock/"])
def test_a_finished_row_is_finished_whatever_becomes_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], in_the_way: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if in_the_way.endswith("/"):
        Path(in_the_way).mkdir(parents=True)
    else:
        Path(in_the_way).touch()
    with pytest.raises(InputError, match="cannot be"):
        record(SPEC, RESULT, "a")
    monkeypatch.setattr(run_row, "train", lambda spec, folder, *_: write_json(folder / "result.json", RESULT))
    assert run_row.run(SPEC, Path("elsewhere"))["metrics"] == {"f1": 70.5}
    assert "The result is kept in the run's result.json; the same command adds it" in capsys.readouterr().err


def test_the_lock_s_file_is_never_written_through(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".results.lock").symlink_to(tmp_path / "thesis.tex")
    with pytest.raises(InputError, match="is a link"):
        record(SPEC, RESULT, "a", tmp_path / "runs")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
