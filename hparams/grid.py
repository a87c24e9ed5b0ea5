"""A workbook's file as raw cells: opened safely, without meaning."""

from __future__ import annotations

import re
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from xml.etree.ElementTree import ParseError

from openpyxl import load_workbook
from openpyxl.utils import get_column_letter
from openpyxl.utils.exceptions import InvalidFileException

from splora.errors import InputError, nearest

_OLE = bytes.fromhex("D0CF11E0A1B11AE1")
_FORMULA = re.compile(rb"<(?:\w+:)?f[\s>/]")


@dataclass(frozen=True)
class Grid:
    """One sheet's filled cells, by row and column number (both from 1)."""

    name: str
    rows: dict[int, dict[int, Any]] = field(default_factory=dict)
    #: Formula cells that hold no computed value: the file was written by a program that does not calculate.
    uncomputed: frozenset[tuple[int, int]] = frozenset()


def coordinate(row: int, column: int) -> str:
    """Excel's name of a cell, as in ``H14``."""
    return f"{get_column_letter(column)}{row}"


def open_grids(path: Path) -> list[Grid]:
    """All visible sheets of the workbook at `path`.

    Raises:
        InputError: the file is missing, is no xlsx, is damaged, or is protected by a password.
    """
    try:
        with path.open("rb") as file:
            _check_signature(path, file)
            grids = _read(file, values=True)
            if _has_formulas(file):
                grids = [
                    _with_uncomputed(grid, formulas) for grid, formulas in zip(grids, _read(file, False), strict=True)
                ]
            return grids
    except FileNotFoundError:
        others = sorted(p.name for p in path.parent.glob("*.xlsx")) if path.parent.is_dir() else []
        raise InputError(f"{path}: there is no such workbook{nearest(path.name, others) or '.'}") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name a workbook, as in {path / 'hyperparameters.xlsx'}.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except (zipfile.BadZipFile, InvalidFileException, ParseError, KeyError, ValueError, TypeError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is damaged or not an xlsx workbook; open and save it again in Excel.") from None


def _check_signature(path: Path, file: IO[bytes]) -> None:
    head = file.read(len(_OLE))
    if head == _OLE:
        if "EncryptedPackage".encode("utf-16-le") in head + file.read():
            raise InputError(f"{path}: is protected by a password; save a copy without one.")
        raise InputError(f"{path}: is an old .xls workbook; save it as .xlsx.")
    if not head.startswith(b"PK"):
        raise InputError(f"{path}: is not an xlsx workbook.")


def _read(file: IO[bytes], values: bool) -> list[Grid]:
    file.seek(0)
    # openpyxl warns of decorations that it does not keep; only cells are read here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        book = load_workbook(file, read_only=True, data_only=values, keep_links=False)
        grids = []
        for sheet in book.worksheets:
            if sheet.sheet_state != "visible":
                continue
            sheet.reset_dimensions()  # some programs write wrong ones
            rows: dict[int, dict[int, Any]] = {}
            for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
                filled = {column: value for column, value in enumerate(row, start=1) if not _blank(value)}
                if filled:
                    rows[number] = filled
            grids.append(Grid(sheet.title, rows))
        return grids


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _has_formulas(file: IO[bytes]) -> bool:
    with zipfile.ZipFile(file) as archive:
        sheets = (name for name in archive.namelist() if name.startswith("xl/worksheets/") and name.endswith(".xml"))
        return any(_FORMULA.search(archive.read(name)) for name in sheets)


def _with_uncomputed(grid: Grid, formulas: Grid) -> Grid:
    """A formula whose value reads as empty text is empty; one with no value at all is uncomputed."""
    missing = {
        (number, column)
        for number, row in formulas.rows.items()
        for column, value in row.items()
        if _is_formula(value) and column not in grid.rows.get(number, {})
    }
    return Grid(grid.name, grid.rows, frozenset(missing))


def _is_formula(value: Any) -> bool:
    return (isinstance(value, str) and value.startswith("=")) or type(value).__name__ in (
        "ArrayFormula",
        "DataTableFormula",
    )
