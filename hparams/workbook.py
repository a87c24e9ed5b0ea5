"""A whole workbook of runs: its sheets, and what must hold between rows."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from splora.hparams import original, rows
from splora.hparams.grid import open_grids
from splora.hparams.rows import Row, Sheet, sentence

from splora.errors import InputError, nearest

#: The project's own workbook.
OWN = Path(__file__).with_name("hyperparameters.xlsx")
_REFERENCE = "run:"


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
    check_references(book)
    return book


def check_references(book: Workbook) -> None:
    """Add a problem to every row whose ``run:ID`` names no other row, or leads back to itself."""
    known = {str(row.spec.exp_id): row for row in book.rows}
    for row in book.rows:
        for name in ("model_name_or_path", "teacher_name_or_path"):
            value = getattr(row.spec, name)
            if value is None or not value.startswith(_REFERENCE):
                continue
            wanted = value.removeprefix(_REFERENCE)
            if wanted not in known:
                hint = nearest(wanted, known)
                row.problems.append(
                    sentence(row, name, f"is {value!r}; the workbook has no row with EXP ID {wanted}{hint}")
                )
            elif _leads_back(row, known, name):
                row.problems.append(sentence(row, name, f"is {value!r}, which leads back to this row itself"))


def _leads_back(row: Row, known: dict[str, Row], name: str) -> bool:
    seen: set[str] = set()
    waiting = [getattr(row.spec, name).removeprefix(_REFERENCE)]
    while waiting:
        current = waiting.pop()
        if current == str(row.spec.exp_id):
            return True
        if current in seen or current not in known:
            continue
        seen.add(current)
        sources = (known[current].spec.model_name_or_path, known[current].spec.teacher_name_or_path)
        waiting += [text.removeprefix(_REFERENCE) for text in sources if text and text.startswith(_REFERENCE)]
    return False


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


def _short(path: Path) -> Path:
    """The path as a person would type it from here."""
    path = path.expanduser()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
