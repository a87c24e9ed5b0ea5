"""Reads tables of text and labels, whatever their format, as a header and rows; their meaning is another module's.

Formats, by suffix: `.csv` (commas, quotes), `.jsonl`, `.ndjson` and `.json` (an object per line, or one list of
objects), `.parquet`; everything else is tab-separated, as GLUE's tables are, with quotes as ordinary characters.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from splora.errors import InputError
from splora.reading import (
    CELL,
    COLUMNS,
    ROW,
    Budget,
    Lines,
    kind,
    limit,
    more_allowed,
    parse_json,
    read_lines,
)

#: Endings of the files that are read; the first ones are named where one is missing.
SUFFIXES = (".tsv", ".csv", ".jsonl", ".parquet", ".json", ".ndjson")


@dataclass(frozen=True)
class RawTable:
    """One file's cells.

    Attributes:
        where: the file, for messages.
        header: column names; of a file without a header, the first row's cells.
        rows: number of each row and its cells: texts, or what JSON and Parquet hold (numbers, None where nothing is).
        unit: what the numbers count, from 1: lines of the file, or rows.
        texts: whether cells are texts that a file without a header could begin with.
        header_line: line of the header, where it has one.
        classes: by column, the names that its numbers stand for, where the data set carries them (`ClassLabel`).
        names: those of the column of labels, once it is known.
    """

    where: str
    header: Sequence[str]
    rows: list[tuple[int, Sequence[Any]]] = field(repr=False)
    unit: str = "line"
    texts: bool = True
    header_line: int | None = None
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    names: Sequence[str] = ()

    def at(self, number: int) -> str:
        """Place of a row, for messages."""
        return f"{self.where}: {self.unit} {number}"


def read_raw(path: str | Path, most: int | None = None) -> RawTable:
    """Read one file; its name may end in `.gz`.

    Args:
        most: of JSON lines, read these many and no more of the file than they take; None: all.

    Raises:
        InputError: it cannot be read, is empty, not UTF-8, not of the format that its suffix says, or beyond the limits
            of `splora.reading`; with the line.
    """
    path = Path(path)
    suffix = Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()
    if suffix == ".parquet":
        return read_parquet(path)
    if suffix in (".json", ".jsonl", ".ndjson"):
        return _json(read_lines(path), str(path), most)
    return (_csv if suffix == ".csv" else _tsv)(read_lines(path), str(path))


def parse_tsv(content: str, where: str) -> RawTable:
    """As `read_raw` of a file with this content: lines of cells between tabs.

    Raises:
        InputError: there is no line.
    """
    return _tsv(enumerate(content.split("\n"), 1), where)


def raw_of_columns(
    where: str, columns: Mapping[str, Iterable[Any]], classes: Mapping[str, Sequence[str]] | None = None
) -> RawTable:
    """A table of columns of the same length, with rows numbered from 1."""
    rows = list(enumerate(zip(*columns.values(), strict=True), 1))
    return RawTable(where, list(columns), list(rows), unit="row", texts=False, classes=classes or {})


def read_parquet(path: Path) -> RawTable:
    """Read a Parquet file, after what its footer says of its size.

    Raises:
        InputError: it is none, has no rows, or is beyond the limits.
    """
    from splora.tasks.parquet_file import classes_of, columns_of

    return raw_of_columns(str(path), columns_of(path), classes_of(path))


def _tsv(lines: Lines, where: str) -> RawTable:
    """Cells between tabs, of any number; quotes are ordinary characters and empty lines are nothing."""
    budget = Budget(where)
    rows: list[tuple[int, Sequence[Any]]] = []
    for number, line in lines:
        if line.strip():
            budget.take(len(line) + ROW + CELL * line.count("\t"), f"line {number}")
            rows.append((number, line.rstrip("\r\n").split("\t")))
    if not rows:
        raise InputError(f"{where}: is empty.")
    return RawTable(where, rows[0][1], rows[1:], header_line=rows[0][0])


def _csv(lines: Lines, where: str) -> RawTable:
    """Cells between commas; cells in quotes may hold commas, doubled quotes and line breaks."""
    reader = csv.reader(_pieces(lines, Budget(where)), strict=True)
    rows: list[tuple[int, Sequence[Any]]] = []
    begin = 1
    try:
        for cells in reader:
            if len(cells) > 1 or any(cell.strip() for cell in cells):
                rows.append((begin, cells))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{where}: line {begin}: is not CSV ({_csv_reason(error)}).") from None
    if not rows:
        raise InputError(f"{where}: is empty.")
    first, header = rows[0]
    odd = next(((number, len(cells)) for number, cells in rows if len(cells) != len(header)), None)
    if odd is not None:
        raise InputError(
            f"{where}: line {odd[0]} has {odd[1]} columns where line {first} has {len(header)}; "
            f"texts with commas, quotes or line breaks stand in quotes."
        )
    return RawTable(where, header, rows[1:], header_line=first)


def _pieces(lines: Lines, budget: Budget) -> Iterator[str]:
    """Lines as CSV has them: they may end at a carriage return alone."""
    for number, line in lines:
        budget.take(len(line) + ROW + CELL * line.count(","), f"line {number}")
        if "\r" in line.removesuffix("\n").removesuffix("\r"):
            yield from re.split(r"(?<=\r)(?!\n|$)", line)
        else:
            yield line


def _json(lines: Iterator[tuple[int, str]], where: str, most: int | None) -> RawTable:
    """An object per line, or one list of objects; a key that an object lacks counts as null."""
    budget = Budget(where)
    unit = "line"
    entries: list[tuple[int, Any]] = []
    for number, line in lines:
        if not line.strip():
            continue
        if not entries and line.lstrip().startswith("["):
            text = "\n" * (number - 1) + "".join([line, *_counted(lines, budget)])
            unit, entries = "entry", list(enumerate(parse_json(text, where, budget=budget), 1))
            break
        entries.append((number, parse_json(line, where, number, budget)))
        if len(entries) == most:
            break
    header: dict[str, None] = {}
    for number, entry in entries:
        if not isinstance(entry, dict):
            raise InputError(f"{where}: {unit} {number}: is {kind(entry)} where an object is needed.")
        if not entry.keys() <= header.keys():
            header.update(dict.fromkeys(entry))
            if len(header) > limit(COLUMNS):
                raise InputError(
                    f"{where}: {unit} {number}: with it there are more than {limit(COLUMNS):,} different keys, the "
                    f"most that are read; {more_allowed()}."
                )
    if not entries:
        raise InputError(f"{where}: is empty.")
    budget.take(len(entries) * (ROW + 8 * len(header)))
    rows: list[tuple[int, Sequence[Any]]] = [(number, [entry.get(key) for key in header]) for number, entry in entries]
    return RawTable(where, list(header), rows, unit=unit, texts=False)


def _counted(lines: Lines, budget: Budget) -> Iterator[str]:
    for number, line in lines:
        budget.take(len(line), f"line {number}")
        yield line


def _csv_reason(error: csv.Error) -> str:
    reason = str(error)
    if "unexpected end" in reason:
        return "a quote that opens here is never closed"
    if "field limit" in reason:
        return f"a text of more than {csv.field_size_limit():,} characters, or a quote that is never closed"
    return reason
