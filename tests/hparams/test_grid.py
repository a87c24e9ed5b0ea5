"""Files that are no workbook end in one sentence."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from splora.errors import InputError
from splora.hparams.workbook import read_workbook

OLE = bytes.fromhex("D0CF11E0A1B11AE1")


def message(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_workbook(path)
    (problem,) = caught.value.problems
    return problem


def test_missing_workbook_names_the_nearest(tmp_path: Path, sheets: SimpleNamespace) -> None:
    sheets.write(tmp_path / "hyperparameters.xlsx", {"SQuAD": [{}]})
    found = message(tmp_path / "hyperparameter.xlsx")
    assert found.endswith("there is no such workbook; did you mean 'hyperparameters.xlsx'?")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"exp_id,task\n1,squad\n", "is not an xlsx workbook."),
        (b"", "is not an xlsx workbook."),
        (OLE + b"\0" * 600 + "EncryptedPackage".encode("utf-16-le"), "is protected by a password"),
        (OLE + b"\0" * 600, "is an old .xls workbook"),
        (b"PK\x03\x04 cut off", "is damaged or not an xlsx workbook"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "a.xlsx"
    path.write_bytes(content)
    assert message(path).startswith(f"{path}: {sentence}")


def test_another_archive_and_a_cut_off_workbook(tmp_path: Path, sheets: SimpleNamespace) -> None:
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        archive.writestr("word/document.xml", "<a/>")
    assert "is damaged or not an xlsx workbook" in message(tmp_path / "a.xlsx")
    whole = sheets.write(tmp_path / "b.xlsx", {"SQuAD": [{}]}).read_bytes()
    (tmp_path / "b.xlsx").write_bytes(whole[: len(whole) // 2])
    assert "is damaged or not an xlsx workbook" in message(tmp_path / "b.xlsx")


def test_a_folder_and_a_workbook_without_runs(tmp_path: Path) -> None:
    from openpyxl import Workbook

    assert "is a folder" in message(tmp_path)
    Workbook().save(tmp_path / "empty.xlsx")
    assert "no sheet has a heading row" in message(tmp_path / "empty.xlsx")
