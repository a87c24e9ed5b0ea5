"""Sheets and EXP IDs that anybody may have typed: none leaves the folder of results, and no two rows share one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import load_workbook

from splora.errors import InputError
from splora.hparams.folders import folder_name, unfit
from splora.hparams.workbook import read_workbook
from splora.scripts.run_from_sheet import main

_DENSITY = "Effective encoder remain weights %"


@given(st.text(max_size=8) | st.text(".-/\\: \0\ud800xä", max_size=300) | st.integers())
def test_a_folder_s_name_is_one_name_below_its_folder_or_refused(name: int | str) -> None:
    if unfit(name) is None:
        folder = Path("runs") / folder_name(name)
        assert folder.parent == Path("runs")
        assert folder.name not in ("", "..", ".")
        assert not set(folder.name) & set("/\\:\0\n\t ")
        assert len(str(folder).encode()) < 200
    else:
        with pytest.raises(InputError):
            folder_name(name)


@pytest.mark.parametrize(
    ("exp_ids", "told"),
    [
        ([".."], "is '..', which cannot name the folder that results go to"),
        (["."], "is '.', which cannot name the folder"),
        (["x" * 300], "which has 300 bytes, and results go to a folder of that name; 180 are possible"),
        (["a:1", "a-1"], "is 'a-1', and its results go to the same folder as those of 'a:1' (sheet 'Details - SQuAD'"),
        (["a/b", "c", "a\\b"], "go to the same folder as those of 'a/b'"),
        (["..", "../..", "/etc"], "is '../..', which cannot name the folder"),
    ],
)
@pytest.mark.parametrize("arguments", [["--check"], ["--all", "--dry-run"]])
def test_exp_ids_that_cannot_name_folders_are_told_before_anything_runs(
    sheets: SimpleNamespace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    exp_ids: list[str],
    told: str,
    arguments: list[str],
) -> None:
    rows: list[Any] = [sheets.published_row(**{"EXP ID": exp_id, _DENSITY: None}) for exp_id in exp_ids]
    path = sheets.write_published(tmp_path / "a.xlsx", rows)
    with pytest.raises(SystemExit) as ended:
        main(["--workbook", str(path), *arguments])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert told in said
    assert max(len(line) for line in said.splitlines()) < 500


@pytest.mark.parametrize("name", ["..", "results.csv", "\u2028", ".ssh"])
def test_a_sheet_that_cannot_name_a_folder_is_told(sheets: SimpleNamespace, tmp_path: Path, name: str) -> None:
    path = sheets.write(tmp_path / "a.xlsx", {"X": [{}]})
    book = load_workbook(path)
    book.worksheets[0].title = name
    book.save(path)
    (problem,) = [text for text in read_workbook(path).problems() if "folder" in text]
    assert "its name cannot name the folder that results go to" in problem


def test_rows_of_two_sheets_do_not_share_a_folder(sheets: SimpleNamespace, tmp_path: Path) -> None:
    path = sheets.write(tmp_path / "a.xlsx", {"a b": [{}], "a-b": [{"exp_id": 2}]})
    assert [text for text in read_workbook(path).problems() if "folder" in text] == []
    path = sheets.write(tmp_path / "a.xlsx", {"a b": [{}], "a-b": [{}]})
    assert [text for text in read_workbook(path).problems() if "names one row" in text] != []
