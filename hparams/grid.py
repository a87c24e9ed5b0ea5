"""A workbook's file as cells, opened safely and read as Excel shows them, without the meaning of columns."""

from __future__ import annotations

import datetime
import re
import warnings
import zipfile
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from xml.etree.ElementTree import Element, ParseError, iterparse

from openpyxl import load_workbook
from openpyxl.cell.read_only import ReadOnlyCell
from openpyxl.styles.numbers import is_date_format, is_timedelta_format
from openpyxl.utils import get_column_letter, range_boundaries
from openpyxl.utils.datetime import from_excel
from openpyxl.utils.exceptions import InvalidFileException
from openpyxl.worksheet._reader import COL_TAG, FORMULA_TAG, MERGE_TAG, ROW_TAG, VALUE_TAG, WorkSheetParser

from splora.errors import InputError, nearest
from splora.hparams.archive import check_archive, check_signature
from splora.hparams.number_formats import shows_text

#: Excel's own limits; a file that passes them was made by no spreadsheet program.
MAX_ROW, MAX_COLUMN, MAX_CHARACTERS = 1_048_576, 16_384, 32_767
#: Filled cells of all visible sheets.
MAX_CELLS = 200_000
_ERROR = re.compile(r"#(?:[A-Z0-9/_]+[!?]|N/A|GETTING_DATA)|Err:\d+")


@dataclass(frozen=True)
class Unreadable:
    """A cell whose value must not be used; `problem` is a sentence's predicate."""

    problem: str


class Formatted(float):
    """A number of a cell whose number format may show it as another one."""

    number_format: str

    def __new__(cls, value: float, number_format: str) -> Formatted:
        """The number `value` with its cell's format."""
        made = super().__new__(cls, value)
        made.number_format = number_format
        return made


@dataclass(frozen=True)
class Grid:
    """One sheet's filled cells, by row and column number (both from 1)."""

    name: str
    rows: dict[int, dict[int, Any]] = field(default_factory=dict)
    #: Formula cells that hold no computed value: the file was written by a program that does not calculate.
    uncomputed: frozenset[tuple[int, int]] = frozenset()
    #: Cells that show the value of a merged range which begins above them; `rows` has it for each of its rows.
    spread: frozenset[tuple[int, int]] = frozenset()
    #: Cells of filled ranges that are merged over several columns, with the range's name.
    wide: Mapping[tuple[int, int], str] = field(default_factory=dict)
    #: Rows that are hidden or filtered away, and hidden columns.
    hidden_rows: frozenset[int] = frozenset()
    hidden_columns: frozenset[int] = frozenset()

    def cell(self, row: int, column: int) -> Any:
        """A cell's value, None where it is empty; `Unreadable` where it shares a value with other columns."""
        if (row, column) in self.wide:
            name = self.wide[row, column]
            return Unreadable(f"is part of the merged cells {name}, but a value belongs to one column; unmerge them")
        return self.rows.get(row, {}).get(column)

    def typed(self, row: int, columns: Iterable[int]) -> list[int]:
        """Those of `columns` that the row itself fills, not a merged range from above."""
        cells = self.rows.get(row, {})
        own = (column for column in columns if column in cells or (row, column) in self.uncomputed)
        return [column for column in own if (row, column) not in self.spread]


def coordinate(row: int, column: int) -> str:
    """Excel's name of a cell, as in ``H14``."""
    return f"{get_column_letter(column)}{row}"


def is_error(value: Any) -> bool:
    """Whether a text is one of Excel's error values, as in ``#REF!``."""
    return isinstance(value, str) and _ERROR.fullmatch(value.strip()) is not None


def open_grids(path: Path) -> list[Grid]:
    """All visible sheets of the workbook at `path`.

    Raises:
        InputError: the file is missing, is no xlsx, is damaged, is protected by a password, or passes a limit.
    """
    try:
        with path.open("rb") as file:
            check_signature(path, file)
            check_archive(path, file)
            return _read(path, file)
    except FileNotFoundError:
        others = sorted(p.name for p in path.parent.glob("*.xlsx")) if path.parent.is_dir() else []
        raise InputError(f"{path}: there is no such workbook{nearest(path.name, others) or '.'}") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name a workbook, as in {path / 'hyperparameters.xlsx'}.") from None
    except InputError:
        raise
    except (
        zipfile.BadZipFile,
        InvalidFileException,
        ParseError,
        LookupError,
        ValueError,
        TypeError,
        EOFError,
        zlib.error,
    ):
        raise InputError(f"{path}: is damaged or not an xlsx workbook; open and save it again in Excel.") from None
    except (AttributeError, ArithmeticError, RuntimeError, MemoryError, AssertionError):
        # What openpyxl makes of markup in the wrong place.
        raise InputError(f"{path}: is damaged; open and save it again in Excel.") from None
    except OSError as error:
        if error.strerror is None:  # openpyxl's word for an archive without a workbook
            raise InputError(f"{path}: is damaged or not an xlsx workbook; it holds no workbook part.") from None
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None


def _read(path: Path, file: IO[bytes]) -> list[Grid]:
    file.seek(0)
    # openpyxl warns of decorations that it does not keep; only cells are read here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        book = load_workbook(file, read_only=True, data_only=True, keep_links=False)
        grids, room = [], MAX_CELLS
        worksheets: list[Any] = list(book.worksheets)
        for sheet in worksheets:
            if sheet.sheet_state != "visible":
                continue
            with sheet._get_source() as source:
                grid = _Reader(path, sheet, source, room).grid()
            room -= sum(len(row) for row in grid.rows.values())
            grids.append(grid)
        return grids


class _Reader(WorkSheetParser):
    """Reads one sheet as a stream; a broken cell costs that cell, not the sheet."""

    def __init__(self, path: Path, sheet: Any, source: IO[bytes], room: int) -> None:
        super().__init__(source, sheet._shared_strings, data_only=True)
        self._path, self._sheet, self._room = path, sheet, room
        self._rows: dict[int, dict[int, Any]] = {}
        self._uncomputed: set[tuple[int, int]] = set()

    def grid(self) -> Grid:
        """The sheet, read."""
        merged: list[tuple[int, int, int, int]] = []
        hidden_columns: set[int] = set()
        hidden_ranges: set[tuple[int, int]] = set()
        element: Any
        for _, element in iterparse(self.source):
            if element.tag == ROW_TAG:
                self.parse_row(element)
                element.clear()
            elif element.tag == COL_TAG and _is_true(element.get("hidden")):
                last = min(int(element.get("max", 0)), MAX_COLUMN)
                hidden_ranges.add((max(1, int(element.get("min", 1))), last))
            elif element.tag == MERGE_TAG:
                merged = [boundaries(child.get("ref", "")) for child in element]
        reached = 0
        for first, last in sorted(hidden_ranges):  # each column once, however many ranges name it
            hidden_columns.update(range(max(first, reached + 1), last + 1))
            reached = max(reached, last)
        spread, wide = self._merge(merged)
        hidden = {int(number) for number, attributes in self.row_dimensions.items() if _is_hidden(attributes)}
        return Grid(
            self._sheet.title,
            self._rows,
            frozenset(self._uncomputed),
            frozenset(spread),
            wide,
            frozenset(hidden),
            frozenset(hidden_columns),
        )

    def parse_cell(self, element: Element) -> dict[str, Any]:
        """Keep the cell if it is filled."""
        if len(element) == 0:
            if not element.get("r"):
                self.col_counter += 1
            return {}
        cell = self._parsed(element)
        row, column, value = cell["row"], cell["column"], cell["value"]
        if not (1 <= row <= MAX_ROW and 1 <= column <= MAX_COLUMN):
            raise InputError(
                f"{self._path}, sheet '{self._sheet.title}': has a cell in row {row:.10g}, column {column:.10g}; a "
                f"sheet ends at row {MAX_ROW:,} and column {MAX_COLUMN:,}."
            )
        formula = element.find(FORMULA_TAG) is not None
        if formula and value is None and (element.get("t") != "str" or element.find(VALUE_TAG) is None):
            self._uncomputed.add((row, column))
        if isinstance(value, str) and not value.strip():
            value = None
        if value is None:
            return {}
        self._room -= 1
        if self._room < 0:
            raise InputError(f"{self._path}: has more than {MAX_CELLS:,} filled cells; so many are not read.")
        self._rows.setdefault(row, {})[column] = self._as_shown(cell, value)
        return {}

    def _parsed(self, element: Element) -> dict[str, Any]:
        """What openpyxl makes of a cell, or the cell with an `Unreadable` value."""
        before = self.col_counter
        try:
            return dict(super().parse_cell(element))
        except (LookupError, ValueError, ArithmeticError, TypeError, AttributeError) as error:
            # The place may be what is broken: then the sheet is.
            self.col_counter = before
            place = super().parse_cell(Element(element.tag, {k: v for k, v in element.attrib.items() if k == "r"}))
            value = element.findtext(VALUE_TAG) or ""
            kind = "the number of a text" if element.get("t") == "s" else "a value"
            why = "that the workbook does not hold" if isinstance(error, IndexError) else "that cannot be read"
            return {**place, "value": Unreadable(f"holds {kind}, {value[:40]!r}, {why}"), "data_type": "e"}

    def _as_shown(self, cell: Mapping[str, Any], value: Any) -> Any:
        if isinstance(value, Unreadable | bool | datetime.date | datetime.time | datetime.timedelta):
            return value
        if cell["data_type"] == "e":
            return Unreadable(f"holds Excel's error {str(value)[:40]}")
        if isinstance(value, str) and len(value) > MAX_CHARACTERS:
            return Unreadable(f"holds {len(value):,} characters; a cell holds at most {MAX_CHARACTERS:,}")
        number_format = self._number_format(cell)
        if isinstance(value, str):
            return (
                value if shows_text(number_format) else Unreadable(f"is hidden by its number format {number_format!r}")
            )
        if isinstance(value, int) and abs(value) > 2**53:
            try:
                value = float(value)
            except OverflowError:
                return Unreadable(f"holds a number of {len(str(abs(value)))} digits, which no cell can")
        if is_date_format(number_format):
            try:
                return from_excel(value, timedelta=is_timedelta_format(number_format))
            except (OverflowError, ValueError):
                return Unreadable(f"is a date beyond all calendars ({value:.10g})")
        return value if number_format == "General" else Formatted(value, number_format)

    def _number_format(self, cell: Mapping[str, Any]) -> str:
        if not cell["style_id"]:
            return "General"
        return str(ReadOnlyCell(self._sheet, **cell).number_format)[:255]

    def _forget(self, rows: list[int], left: int, right: int) -> None:
        """Drop what lies below a merged range that shows nothing; some programs keep it."""
        for row in rows:
            for column in [column for column in self._rows.get(row, {}) if left <= column <= right]:
                del self._rows[row][column]
        below = set(rows)
        self._uncomputed = {
            (row, column) for row, column in self._uncomputed if row not in below or not left <= column <= right
        }

    def _merge(
        self, ranges: list[tuple[int, int, int, int]]
    ) -> tuple[set[tuple[int, int]], dict[tuple[int, int], str]]:
        """Give each row of a merged range its value; returns the cells filled so, and those over several columns."""
        spread: set[tuple[int, int]] = set()
        wide: dict[tuple[int, int], str] = {}
        numbers = sorted({*self._rows, *(row for row, _ in self._uncomputed)})
        for left, top, right, bottom in ranges:
            value = self._rows.get(top, {}).get(left)
            uncomputed = (top, left) in self._uncomputed
            covered = numbers[bisect_left(numbers, top) : bisect_right(numbers, bottom)]
            self._room -= len(covered) * (right - left + 1)
            if self._room < 0:
                raise InputError(f"{self._path}: has merged ranges over more than {MAX_CELLS:,} cells.")
            if value is None and not uncomputed:
                self._forget(covered, left, right)
                continue
            if right > left:
                name = f"{coordinate(top, left)}:{coordinate(bottom, right)}"
                wide |= {(row, column): name for row in covered for column in range(left, right + 1)}
            for row in covered[1:]:
                spread.add((row, left))
                if uncomputed:
                    self._uncomputed.add((row, left))
                else:
                    self._rows.setdefault(row, {})[left] = value
        return spread, wide


def boundaries(name: str) -> tuple[int, int, int, int]:
    """First column and row, last column and row of a range; whole columns and rows end where sheets do."""
    left, top, right, bottom = range_boundaries(name)
    return left or 1, top or 1, right or MAX_COLUMN, bottom or MAX_ROW


def _is_true(text: str | None) -> bool:
    return text is not None and text.strip().lower() in ("1", "true")


def _is_hidden(attributes: Mapping[str, str]) -> bool:
    return _is_true(attributes.get("hidden")) or float(attributes.get("ht", 1)) == 0


def filled_below(grid: Grid, heading: int) -> list[tuple[int, list[int]]]:
    """Columns that are filled below the heading row, each with the rows that fill it."""
    below: dict[int, set[int]] = {}
    filled = ((row, column) for row, cells in grid.rows.items() for column in cells)
    for row, column in (*filled, *grid.uncomputed):
        if row > heading:
            below.setdefault(column, set()).add(row)
    return [(column, sorted(below[column])) for column in sorted(below)]
