"""`results.csv`: written so that no program takes a text for a formula, read as whatever program last saved it.

Excel saves what it opened as "CSV UTF-8" with a mark at its start, as Windows-1252, or as UTF-16 with tabs, and with
semicolons and decimal commas where that is the custom. All of these are read; what cannot be is put aside, not lost.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splora.errors import InputError
from splora.files import replacing

Line = dict[str, Any]
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_DELIMITERS = (",", ";", "\t")
#: Excel's first line that names the delimiter.
_SEPARATOR = re.compile(r'"?sep=([,;\t])"?(?:\r\n|\r|\n)', re.IGNORECASE)
#: A text that Excel, or one of its East Asian versions, takes for a formula; and one that was escaped for it.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_COMMA = re.compile(r"([+-]?\d+),(\d+([eE][+-]?\d+)?)", re.ASCII)
#: Headings by which the file is known.
_KNOWN = ("sheet", "exp_id", "run")


@dataclass(frozen=True)
class Table:
    """The lines of the file, texts as they were written, and sentences on how they were read."""

    lines: list[Line]
    notices: tuple[str, ...] = ()


class Unreadable(ValueError):
    """The file is no table of results; the message is a predicate."""


def read_table(path: Path, texts: Sequence[str]) -> Table:
    """The lines of `path`, nothing lost: every cell has a name, every value its text.

    A file that is no table of results is renamed beside itself, and told; then there are no lines.

    Args:
        texts: columns that hold texts; in others a decimal comma becomes a point.

    Raises:
        InputError: the file cannot be opened, or not be put aside.
    """
    try:
        if not path.exists():
            return Table([])
        if not path.is_file():
            raise InputError(f"{path}: cannot be read (it is no file).")
        content = path.read_bytes()
        try:
            text, guessed = _decoded(content)
            lines = _lines(text, texts)
        except (Unreadable, csv.Error) as error:
            aside = _free(path)
            path.rename(aside)
            return Table([], (f"{path}: {error}; it was renamed {aside.name} and a new table begun.",))
        if not guessed:
            return Table(lines)
        aside = _free(path)
        shutil.copyfile(path, aside)
        return Table(lines, (f"{path}: is no UTF-8 and was read as Windows-1252; {aside.name} is as it was before.",))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error


def write_table(path: Path, lines: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write the lines as UTF-8 with commas; texts that a program would take for formulas are escaped by ``'``.

    Raises:
        InputError: the file cannot be written.
    """
    names = list(dict.fromkeys([*columns, *(name for values in lines for name in values)]))
    rows: list[list[Any]] = [names, *([values.get(name) for name in names] for values in lines)]
    with replacing(path) as beside, beside.open("w", encoding="utf-8", errors="replace", newline="") as file:
        file.writelines(_record(row) for row in rows)


def escaped(text: str) -> str:
    """A text as a cell that is a text to every program; `unescaped` gives it back."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unescaped(text: str) -> str:
    """The text that `escaped` was given; a formula of a file from before there was escaping stays as it is."""
    return text[1:] if _ESCAPED.match(text) else text


def _record(row: Sequence[Any]) -> str:
    cells = ["" if value is None else escaped(value) if isinstance(value, str) else value for value in row]
    record = io.StringIO()
    # With this ending the writer quotes both signs; the file's own lines end as those of all others here.
    csv.writer(record, lineterminator="\r\n").writerow(cells)
    return record.getvalue().removesuffix("\r\n") + "\n"


def _decoded(content: bytes) -> tuple[str, bool]:
    """The text, and whether its encoding was guessed."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return _strict(content, encoding), False
    if b"\0" in content[:2]:  # UTF-16 without a mark, of a heading in Latin letters
        return _strict(content, "utf-16-be" if content[:1] == b"\0" else "utf-16-le"), False
    try:
        return content.decode("utf-8"), False
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace"), True


def _strict(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise Unreadable(f"is not the {encoding.upper()} that it begins as") from error


def _lines(text: str, texts: Sequence[str]) -> list[Line]:
    told = _SEPARATOR.match(text)
    text = text[told.end() if told else 0 :]
    first = re.split(r"[\r\n]", text, maxsplit=1)[0]
    known = {sign: len(set(_KNOWN) & set(next(csv.reader([first], delimiter=sign), []))) for sign in _DELIMITERS}
    delimiter = told[1] if told else max(known, key=lambda sign: known[sign])
    records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    headings = [unescaped(heading) for heading in next(records, [])]
    if not text.strip():
        return []
    if not set(_KNOWN) <= set(headings):
        raise Unreadable(f"is no table of results (its first line does not name {', '.join(_KNOWN)})")
    found = []
    for record in records:
        if any(record):
            record += [""] * (len(headings) - len(record))
            names = _names(headings, len(record))
            cells = zip(names, (unescaped(cell) for cell in record), strict=True)
            found.append({name: cell if delimiter == "," or name in texts else _point(cell) for name, cell in cells})
    return found


def _names(headings: Sequence[str], count: int) -> list[str]:
    """Names for so many cells of a line: a heading that is missing, or stands there twice, must not cost its cells."""
    names: list[str] = []
    for number in range(count):
        heading = headings[number] if number < len(headings) else ""
        heading = heading or f"column {number + 1}"
        names.append(heading if heading not in names else f"{heading} (column {number + 1})")
    return names


def _point(cell: str) -> str:
    return _COMMA.sub(r"\1.\2", cell) if _COMMA.fullmatch(cell) else cell


def _free(path: Path) -> Path:
    """A name beside `path` that nothing has yet."""
    names = (path.with_name(f"{path.stem}.before-{number}{path.suffix}") for number in itertools.count(1))
    return next(name for name in names if not name.exists() and not name.is_symlink())
