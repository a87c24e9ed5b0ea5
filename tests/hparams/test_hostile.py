"""Workbooks made to harm: each ends in one sentence, soon and in little memory."""

from __future__ import annotations

import re
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from openpyxl.xml.constants import SHARED_STRINGS

from splora.errors import InputError
from splora.hparams import archive, grid
from splora.hparams.workbook import read_workbook

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


@pytest.fixture
def whole(tmp_path: Path, sheets: SimpleNamespace) -> Path:
    """A good workbook that keeps a text of its rows as Excel does, by its number in a table."""
    inline = sheets.write(tmp_path / "inline.xlsx", {"SQuAD": [{}, {"exp_id": 2}]})
    listed = b'<Override PartName="/xl/sharedStrings.xml" ContentType="' + SHARED_STRINGS.encode() + b'"/></Types>'
    with zipfile.ZipFile(inline) as old, zipfile.ZipFile(tmp_path / "whole.xlsx", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            data = old.read(name).replace(b't="inlineStr"><is><t>a row</t></is>', b't="s"><v>0</v>')
            new.writestr(name, data.replace(b"</Types>", listed))
        new.writestr("xl/sharedStrings.xml", f'<sst xmlns="{MAIN}"><si><t>a row</t></si></sst>')
    book = read_workbook(tmp_path / "whole.xlsx")
    assert (book.problems(), [row.spec.model for row in book.rows]) == ([], ["a row", "a row"])
    return tmp_path / "whole.xlsx"


def with_parts(path: Path, **changes: Any) -> Path:
    """A copy of a workbook with parts replaced (by their name without folder), or changed by a function."""
    made = path.with_name("made.xlsx")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            change = changes.get(Path(name).stem if name.startswith("xl/") else "")
            data = old.read(name)
            new.writestr(name, data if change is None else change(data) if callable(change) else change)
    return made


def message(path: Path) -> str:
    """The one sentence that reading ends with, soon, and short enough to be read."""
    begun = time.process_time()
    try:
        problems = read_workbook(path).problems()
    except InputError as error:
        problems = error.problems
    assert time.process_time() - begun < 10
    (problem,) = problems
    assert len(problem) < 600
    return problem.removeprefix(f"{path}: ").removeprefix(f"{path}, ")


def sheet(rows: str, after: str = "") -> bytes:
    return f'<worksheet xmlns="{MAIN}"><sheetData>{rows}</sheetData>{after}</worksheet>'.encode()


@pytest.mark.parametrize("part", ["sheet1", "theme1"])
def test_bombs_are_judged_by_their_size_unpacked(whole: Path, part: str) -> None:
    told = message(with_parts(whole, **{part: b" " * 65 * 2**20}))
    assert re.fullmatch(r"takes 65 MiB unpacked; at most 64 MiB are read\.", told)


def test_a_size_that_is_a_lie_unpacks_no_more(whole: Path) -> None:
    made = with_parts(whole, sheet1=b" " * 65 * 2**20)
    data = made.read_bytes().replace(struct.pack("<L", 65 * 2**20), struct.pack("<L", 1000))
    made.write_bytes(data)
    assert "is damaged, its part xl/worksheets/sheet1.xml cannot be unpacked" in message(made)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            '<row r="2000000000"><c r="A2000000000"><v>1</v></c></row>',
            "has a cell in row 2000000000, column 1; a sheet",
        ),
        ('<row r="2000000000"><c><v>1</v></c></row>', "has a cell in row 2000000000, column 1; a sheet ends at row"),
        (f'<row r="1">{"<c><v>1</v></c>" * 17_000}</row>', "has a cell in row 1, column 16385"),
        ('<row r="1"><c r="ZZZ1"><v>1</v></c></row>', "has a cell in row 1, column 18278"),
        ('<row r="1"><c r="A0"><v>1</v></c></row>', "has a cell in row 0, column 1"),
        (f'<row r="{"9" * 400}"><c><v>1</v></c></row>', "is damaged"),
        (f'<row r="1"><c r="A{"9" * 400}"><v>1</v></c></row>', "is damaged"),
        ("<row>" + "<c/>" * 1_000_001 + "</row>", "holds 1,000,"),
        ("<a>" * 20_000 + "</a>" * 20_000, "no sheet has a heading row"),
    ],
    ids=lambda value: value[:30],
)
def test_rows_and_columns_have_ends(whole: Path, rows: str, told: str) -> None:
    assert told in message(with_parts(whole, sheet1=sheet(rows)))


def test_cells_parts_and_sheets_have_limits(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "MAX_CELLS", 1000)
    row = "<row>" + "<c><v>1</v></c>" * 500 + "</row>"
    assert "has more than 1,000 filled cells" in message(with_parts(whole, sheet1=sheet(row * 3)))
    merged = '<mergeCells><mergeCell ref="A1:XFD9"/></mergeCells>'
    assert "merged ranges over more than 1,000 cells" in message(with_parts(whole, sheet1=sheet(row, merged)))
    many = "".join(f'<sheet name="s{n}" sheetId="{n}" r:id="rId1"/>' for n in range(1, 5001)).encode()
    listed: Callable[[bytes], bytes] = lambda data: data.replace(b"<sheets>", b"<sheets>" + many)  # noqa: E731
    assert message(with_parts(whole, workbook=listed)) == "holds 5,001 sheets; at most 200 are read."
    texts = f'<sst xmlns="{MAIN}">{"<si><t/></si>" * 80_000}</sst>'.encode()
    assert "texts, styles and other tags beside its cells" in message(with_parts(whole, sharedStrings=texts))
    wide = texts.decode().encode("utf-16")
    assert "texts, styles and other tags beside its cells" in message(with_parts(whole, sharedStrings=wide))
    made = with_parts(whole)
    with zipfile.ZipFile(made, "a") as book:
        for number in range(archive.MAX_PARTS):
            book.writestr(f"{number}", b"")
    assert "parts; at most 2,000 are read." in message(made)


def test_the_largest_workbook_is_read_soon(tmp_path: Path) -> None:
    # What the limits let through: filled cells, and cells that are only formatted.
    made = tmp_path / "made.xlsx"
    from openpyxl import Workbook

    Workbook().save(tmp_path / "whole.xlsx")
    row = "<row>" + "<c><v>1.5</v></c>" * 200 + '<c s="0"/>' * 400 + "</row>"
    made = with_parts(tmp_path / "whole.xlsx", sheet1=sheet(row * 500))
    assert message(made).startswith("no sheet has a heading row")


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ('t="s"><v>99999</v>', "holds the number of a text, '99999', that the workbook does not hold"),
        ('t="s"><v>-99999</v>', "holds the number of a text, '-99999', that the workbook does not hold"),
        ('t="s"><v>x</v>', "holds the number of a text, 'x', that cannot be read"),
        (f"><v>{'9' * 400}</v>", "holds a number of 400 digits, which no cell can"),
        (f"><v>{'9' * 5000}</v>", "that cannot be read"),
        ("><v>1e999</v>", "is inf; a finite number is needed"),
        ("><v>nan</v>", "that cannot be read"),
        ('t="b"><v>maybe</v>', "that cannot be read"),
        ('t="e"><v>#BUSY!</v>', "holds Excel's error #BUSY!"),
        ('t="d"><v>yesterday</v>', "that cannot be read"),
        (f't="str"><v>{"x" * 40_000}</v>', "holds 40,000 characters; a cell holds at most 32,767"),
        (f't="str"><v>{"x" * 30_000}</v>', "(30,000 characters)"),
        (f't="inlineStr"><is><t>{"9" * 30_000},5</t></is>', "(30,002 characters)"),
        ('t="inlineStr"><is><t>a</t><nonsense a="b"/></is>', "is the text 'a'; a number"),
    ],
    ids=lambda value: value[:24],
)
def test_a_broken_cell_costs_that_cell(whole: Path, sheets: SimpleNamespace, cell: str, told: str) -> None:
    place = sheets.cell_of("learning_rate")

    def change(data: bytes) -> bytes:
        changed, count = re.subn(rb'(<c r="%s")[^>]*>.*?</c>' % place.encode(), rb"\1 " + cell.encode() + b"</c>", data)
        assert count == 1
        return changed

    problem = message(with_parts(whole, sheet1=change))
    assert problem.startswith(f"sheet 'SQuAD', cell {place} (learning_rate): ")
    assert told in problem


@pytest.mark.parametrize("field", ["seed", "max_steps", "exp_id", "warmup_steps"])
def test_whole_numbers_end(tmp_path: Path, sheets: SimpleNamespace, field: str) -> None:
    headings = (*sheets.columns, "seed")
    path = sheets.write(tmp_path / "a.xlsx", {"SQuAD": [{field: 10**15}]}, headings)
    assert "is 1e+15; at most" in message(path)


@pytest.mark.parametrize("part", ["sheet1", "workbook", "styles", "sharedStrings"])
@pytest.mark.parametrize(
    "damage", [lambda d: d[:-20], lambda d: b"<a>" + d, lambda d: b"", lambda d: b"\xff\xfe\0", "x"]
)
def test_damaged_markup_is_one_sentence(whole: Path, part: str, damage: Any) -> None:
    told = message(with_parts(whole, **{part: damage}))
    assert "is damaged" in told or "no sheet has a heading row" in told


def test_entities_are_refused(whole: Path) -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>' + sheet("")
    assert "declares a document type" in message(with_parts(whole, sheet1=bomb))


@pytest.mark.parametrize(
    ("offset", "value", "told"),
    [
        (8, b"\x01\0", "is encrypted; save a copy without a password"),
        (10, b"\x63\0", "compressed in a way (number 99)"),
    ],
)
def test_encrypted_and_unknown_parts(whole: Path, offset: int, value: bytes, told: str) -> None:
    data = bytearray(whole.read_bytes())
    at = data.index(b"PK\x01\x02") + offset
    data[at : at + 2] = value
    whole.write_bytes(data)
    assert told in message(whole)


def test_a_damaged_stream_is_one_sentence(whole: Path) -> None:
    data = bytearray(whole.read_bytes())
    at = data.index(b"xl/worksheets/sheet1.xml") + len("xl/worksheets/sheet1.xml")
    data[at : at + 40] = b"\xff" * 40
    whole.write_bytes(data)
    assert "is damaged, its part xl/worksheets/sheet1.xml cannot be unpacked" in message(whole)


def test_other_kinds_of_workbooks_are_named(whole: Path, tmp_path: Path) -> None:
    strict = with_parts(whole, workbook=lambda data: data.replace(MAIN.encode(), archive._STRICT))
    assert message(strict).startswith("is a 'Strict Open XML Spreadsheet', which is not read; save it in Excel as")
    for name, content, told in (
        ("xl/workbook.bin", b"", "is a binary workbook (.xlsb); save it as .xlsx."),
        ("mimetype", b"application/vnd.oasis.opendocument.spreadsheet", "is an OpenDocument file; save it as .xlsx."),
    ):
        with zipfile.ZipFile(tmp_path / "other", "w") as book:
            book.writestr(name, content)
        assert message(tmp_path / "other") == told


def test_repeats_are_counted_and_values_cut(
    tmp_path: Path, sheets: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    from splora.scripts.run_from_sheet import main

    rows = [{"exp_id": number, "pruning_method": "x" * 30_000, "learning_rate": "fast"} for number in range(1, 301)]
    path = sheets.write(tmp_path / "a.xlsx", {"SQuAD": rows})
    with pytest.raises(SystemExit):
        main(["--workbook", str(path), "--check"])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) < 1100
    assert all("So it is 299 times more, up to cell " in line for line in lines)


def test_a_part_that_is_larger_than_it_says_is_not_unpacked(whole: Path) -> None:
    made = with_parts(whole, theme1=b" " * 40 * 2**20)
    made.write_bytes(made.read_bytes().replace(struct.pack("<L", 40 * 2**20), struct.pack("<L", 1000)))
    tracemalloc.start()
    try:
        assert "is damaged, its part xl/theme/theme1.xml cannot be unpacked" in message(made)
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


def test_blanks_before_markup_hide_none_of_its_tags(whole: Path) -> None:
    texts = f'<sst xmlns="{MAIN}">{"<si><t/></si>" * 60_000}</sst>'.encode()
    assert "texts, styles and other tags beside its cells" in message(
        with_parts(whole, sharedStrings=b" " * 5_000 + texts)
    )


@pytest.mark.parametrize(
    "columns", ['<col min="-2000000000" max="5" hidden="1"/>', '<col min="1" max="16384" hidden="1"/>' * 20_000]
)
def test_hidden_columns_are_counted_once(whole: Path, columns: str) -> None:
    def hide(data: bytes) -> bytes:
        return data.replace(b"<sheetData>", f"<cols>{columns}</cols><sheetData>".encode())

    begun = time.process_time()
    book = read_workbook(with_parts(whole, sheet1=hide))
    assert [row.spec.model for row in book.rows] == ["a row", "a row"]
    assert time.process_time() - begun < 10


def test_a_future_version_of_the_format_is_one_sentence(whole: Path) -> None:
    data = bytearray(whole.read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 99
    (whole.parent / "made.xlsx").write_bytes(bytes(data))
    assert "is damaged" in message(whole.parent / "made.xlsx")


@pytest.mark.parametrize(
    ("changes", "setup", "told"),
    [
        ({"per_gpu_train_batch_size": 0}, "bert-base-uncased/92/squad", "per_gpu_train_batch_size"),
        ({"num_train_epochs": 1e305}, "bert-base-uncased/92/squad", "num_train_epochs"),
        ({}, "bert/²/squad", "cell C1"),
        ({}, f"bert/{'9' * 5_000}/squad", "cell C1"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_published_layout_has_limits_too(
    tmp_path: Path, sheets: SimpleNamespace, changes: dict[str, Any], setup: str, told: str
) -> None:
    path = sheets.write_published(tmp_path / "a.xlsx", [sheets.published_row(**changes)], setup)
    assert any(told in problem for problem in read_workbook(path).problems())
