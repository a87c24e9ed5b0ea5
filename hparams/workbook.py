"""A whole workbook of runs: its sheets, and what must hold between rows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splora.errors import InputError, cut, nearest
from splora.files import expanded
from splora.hparams import original, rows
from splora.hparams.folders import folder_name, unfit
from splora.hparams.grid import open_grids
from splora.hparams.lineage import SOURCES, leads_back, reference
from splora.hparams.rows import Row, Sheet, sentence
from splora.json_values import one_line
from splora.training.specification import FIELDS, RunSpecification

#: The project's own workbook.
OWN = Path(__file__).with_name("hyperparameters.xlsx")
#: What a notice says of a row whose scores were copied.
COPIED = "its reported scores are those of"
_REPORTED = tuple(name for name in FIELDS if name.startswith("reported_"))


@dataclass(frozen=True)
class Workbook:
    """The sheets of runs in one file, in the file's order."""

    path: Path
    sheets: list[Sheet]
    #: Visible sheets that hold no runs, such as a page that explains the columns.
    others: tuple[str, ...] = ()

    @property
    def rows(self) -> list[Row]:
        """The rows of all sheets."""
        return [row for sheet in self.sheets for row in sheet.rows]

    def sheet(self, name: str) -> Sheet:
        """The sheet called `name`.

        Raises:
            InputError: there is no such sheet, or it holds no runs.
        """
        for sheet in self.sheets:
            if sheet.name == name:
                return sheet
        names = [sheet.name for sheet in self.sheets]
        if name in self.others:
            raise InputError(f"{self.path}, sheet '{name}': holds no runs; sheets with runs are {', '.join(names)}.")
        hint = nearest(name, names) or "."
        raise InputError(f"{self.path}: there is no sheet '{name}'; sheets with runs are {', '.join(names)}{hint}")

    def problems(self, sheets: Iterable[Sheet] | None = None) -> list[str]:
        """Everything wrong in `sheets` (all by default), as sentences."""
        chosen = self.sheets if sheets is None else sheets
        return [
            text for sheet in chosen for text in (*sheet.problems, *(p for row in sheet.rows for p in row.problems))
        ]


def read_workbook(path: str | os.PathLike[str]) -> Workbook:
    """Read and check every row of every visible sheet; what is wrong stands in the rows' `problems`.

    Raises:
        InputError: the file cannot be read, or no sheet holds runs.
    """
    path = _short(Path(path))
    sheets, others = [], []
    for grid in open_grids(path):
        sheet = original.read_sheet(path, grid) or rows.read_sheet(path, grid)
        if sheet is None:
            others.append(grid.name)
        else:
            sheets.append(sheet)
    if not sheets:
        raise InputError(
            f"{path}: no sheet has a heading row with the columns of a run, such as exp_id and pruning_method."
        )
    book = Workbook(path, sheets, tuple(others))
    _check_unique(book)
    _check_folders(book)
    check_references(book)
    check_copies(book)
    return book


def specifications(book: Workbook) -> dict[str, RunSpecification]:
    """All rows by EXP ID; of rows that share one, the first."""
    return {str(row.spec.exp_id): row.spec for row in reversed(book.rows)}


def check_references(book: Workbook) -> None:
    """Add a problem to every row whose ``run:ID`` names no other row, several, or leads back to itself."""
    known = specifications(book)
    counts = Counter(str(row.spec.exp_id) for row in book.rows)
    for row in book.rows:
        for name in SOURCES:
            value = getattr(row.spec, name)
            wanted = reference(value)
            if wanted is None:
                continue
            if wanted not in known:
                hint = nearest(wanted, known)
                told = f"is {cut(value)}; the workbook has no row with EXP ID {wanted[:80]}{hint}"
            elif counts[wanted] > 1:
                told = f"is {cut(value)}, but {counts[wanted]} rows have that EXP ID"
            elif leads_back(row.spec, known, name):
                told = f"is {cut(value)}, which leads back to this row itself"
            else:
                continue
            row.problems.append(sentence(row, name, told))


def check_copies(book: Workbook) -> None:
    """Add a notice to every row whose reported scores are those of an earlier row with other settings."""
    first: dict[tuple[Any, ...], Row] = {}
    for row in book.rows:
        scores = tuple(getattr(row.spec, name) for name in _REPORTED)
        if sum(score is not None for score in scores) < 2:
            continue
        other = first.setdefault((row.spec.task, *scores), row)
        if _settings(other.spec) != _settings(row.spec):
            place = f"EXP ID {other.spec.exp_id} (sheet '{other.sheet}', row {other.number})"
            row.notices.append(
                f"{row.path}, sheet '{row.sheet}', row {row.number} (EXP ID {row.spec.exp_id}): {COPIED} {place}, "
                "which has other settings; a copied row has none of its own, clear them."
            )


def _settings(spec: RunSpecification) -> dict[str, Any]:
    """What is run, without names and reported scores."""
    return {name: getattr(spec, name) for name in FIELDS if name not in ("exp_id", "sheet", "model", *_REPORTED)}


def _check_unique(book: Workbook) -> None:
    first: dict[int, Row] = {}
    for row in book.rows:
        exp_id = row.spec.exp_id
        if not isinstance(exp_id, int):
            continue
        if exp_id in first:
            other = first[exp_id]
            where = f"sheet '{other.sheet}', cell {other.cells['exp_id']}"
            row.problems.append(
                sentence(row, "exp_id", f"is {exp_id}, as is {where}; an EXP ID names one row of the workbook")
            )
        else:
            first[exp_id] = row


def _check_folders(book: Workbook) -> None:
    """Results of a row go to ``<sheet>/<EXP ID>``: each must be a name of a folder, and no two rows share one."""
    first: dict[tuple[str, str], Row] = {}
    for sheet in book.sheets:
        if (found := unfit(sheet.name)) is not None:
            sheet.problems.append(f"{book.path}, sheet {one_line(repr(sheet.name), 60)}: its name {found}.")
            continue
        for row in sheet.rows:
            exp_id = row.spec.exp_id
            if exp_id == "":
                continue
            if (found := unfit(exp_id)) is not None:
                row.problems.append(sentence(row, "exp_id", f"is {one_line(repr(exp_id), 60)}, which {found}"))
                continue
            other = first.setdefault((folder_name(sheet.name), folder_name(exp_id)), row)
            if other is not row and not (isinstance(exp_id, int) and other.spec.exp_id == exp_id):  # said above
                where = other.place("exp_id").removeprefix(f"{book.path}, ")
                told = f"is {exp_id!r}, and its results go to the same folder as those of {other.spec.exp_id!r}"
                row.problems.append(sentence(row, "exp_id", f"{told} ({where}); signs alone do not tell folders apart"))


def _short(path: Path) -> Path:
    """The path as a person would type it from here."""
    path = expanded(path)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
