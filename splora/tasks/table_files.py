"""Reads tables of text and labels, whatever their format, as a header and rows; their meaning is another module's.

Formats, by suffix: `.csv` (commas, quotes), `.jsonl`, `.ndjson` and `.json` (an object per line, or one list of
objects), `.parquet`; everything else is tab-separated, as GLUE's tables are, with quotes as ordinary characters.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from splora.errors import InputError

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
    """

    where: str
    header: Sequence[str]
    rows: list[tuple[int, Sequence[Any]]] = field(repr=False)
    unit: str = "line"
    texts: bool = True
    header_line: int | None = None

    def at(self, number: int) -> str:
        """Place of a row, for messages."""
        return f"{self.where}: {self.unit} {number}"


def read_raw(path: str | Path) -> RawTable:
    """Read one file.

    Raises:
        InputError: it cannot be read, is empty, not UTF-8, or not of the format that its suffix says; with the line.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet(path)
    parse: Callable[[str, str], RawTable] = _PARSERS.get(suffix, parse_tsv)
    return parse(_text(path), str(path))


def parse_tsv(content: str, where: str) -> RawTable:
    """Lines of cells between tabs, of any number; quotes are ordinary characters and empty lines are nothing.

    Raises:
        InputError: there is no line.
    """
    lines = [
        (number, line.rstrip("\r").split("\t")) for number, line in enumerate(content.split("\n"), 1) if line.strip()
    ]
    if not lines:
        raise InputError(f"{where}: is empty.")
    return RawTable(where, lines[0][1], list(lines[1:]), header_line=lines[0][0])


def parse_csv(content: str, where: str) -> RawTable:
    """Cells between commas; cells in quotes may hold commas, doubled quotes and line breaks.

    Raises:
        InputError: there is no line, a quote is not closed, or a row has not as many cells as the first.
    """
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    lines: list[tuple[int, list[str]]] = []
    begin = 1
    try:
        for cells in reader:
            if len(cells) > 1 or any(cell.strip() for cell in cells):
                lines.append((begin, cells))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{where}: line {begin}: is not CSV ({_csv_reason(error)}).") from None
    if not lines:
        raise InputError(f"{where}: is empty.")
    first, header = lines[0]
    odd = next(((number, len(cells)) for number, cells in lines if len(cells) != len(header)), None)
    if odd is not None:
        raise InputError(
            f"{where}: line {odd[0]} has {odd[1]} columns where line {first} has {len(header)}; "
            f"texts with commas, quotes or line breaks stand in quotes."
        )
    return RawTable(where, header, list(lines[1:]), header_line=first)


def parse_json(content: str, where: str) -> RawTable:
    """An object per line, or one list of objects; a key that an object lacks counts as null.

    Raises:
        InputError: a line is not JSON or no object, or there is none.
    """
    if not content.strip():
        raise InputError(f"{where}: is empty.")
    if content.lstrip().startswith("["):
        unit, entries = "entry", list(enumerate(_loads(content, where, 0), 1))
    else:
        # Not `splitlines`: a text of JSON may hold U+2028, which is no end of line there.
        lines = enumerate(content.split("\n"), 1)
        unit, entries = "line", [(number, _loads(line, where, number)) for number, line in lines if line.strip()]
    for number, entry in entries:
        if not isinstance(entry, dict):
            raise InputError(f"{where}: {unit} {number}: is {_kind(entry)} where an object is needed.")
    if not entries:
        raise InputError(f"{where}: is empty.")
    header = list(dict.fromkeys(key for _, entry in entries for key in entry))
    rows = [(number, [entry.get(key) for key in header]) for number, entry in entries]
    return RawTable(where, header, list(rows), unit=unit, texts=False)


def raw_of_columns(where: str, columns: dict[str, Iterable[Any]]) -> RawTable:
    """A table of columns of the same length, with rows numbered from 1."""
    rows = list(enumerate(zip(*columns.values(), strict=True), 1))
    return RawTable(where, list(columns), list(rows), unit="row", texts=False)


_PARSERS = {".csv": parse_csv, ".json": parse_json, ".jsonl": parse_json, ".ndjson": parse_json}


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
    place = content.find(0)
    if place >= 0:
        line = content.count(b"\n", 0, place) + 1
        raise InputError(f"{path}: line {line}: holds a NUL byte: damaged, or UTF-16; save the file as UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}: line {line}: is not UTF-8 (byte 0x{content[error.start]:02x}); save the file as UTF-8."
        ) from None


def _csv_reason(error: csv.Error) -> str:
    reason = str(error)
    if "unexpected end" in reason:
        return "a quote that opens here is never closed"
    if "field limit" in reason:
        return f"a text of more than {csv.field_size_limit():,} characters, or a quote that is never closed"
    return reason


def _loads(text: str, where: str, line: int) -> Any:
    """Parsed JSON; `line`: number of the line that `text` is, or 0 where it is the whole file."""
    try:
        return json.loads(text)
    except RecursionError:
        raise InputError(f"{where}: line {line or 1}: is nested too deeply to be an example.") from None
    except json.JSONDecodeError as error:
        at = f"line {line or error.lineno}: is not JSON at column {error.colno} ({error.msg})"
        raise InputError(f"{where}: {at}.") from None


def _parquet(path: Path) -> RawTable:
    import pyarrow as arrow
    import pyarrow.parquet

    try:
        # Not `read_table`: it would take parts of the path, like `fold=1`, for columns.
        with pyarrow.parquet.ParquetFile(path) as file:
            table = file.read()
            columns = {name: table.column(place).to_pylist() for place, name in enumerate(table.column_names)}
    except (arrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{path}: cannot be read as Parquet ({reason[0].rstrip('.')}).") from None
    if not table.num_rows:
        raise InputError(f"{path}: has no rows.")
    return raw_of_columns(str(path), columns)


def _kind(value: Any) -> str:
    names = {str: "a text", bool: "true/false", int: "a number", float: "a number", list: "a list", type(None): "null"}
    return names.get(type(value), type(value).__name__)
