"""Reads files that somebody else wrote, within limits that are told, and to one sentence where they are none.

A file of a few kilobytes can unpack to gigabytes, and a JSON of 90 MB can take 6 GB as objects. So what is read of one
file is limited in bytes (unpacked), in the memory that its values are estimated to take, and in the characters of one
text. Who has a real file beyond them raises all limits: `SPLORA_LIMITS=4` allows four times as much. Imports nothing
heavy.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from splora.errors import InputError, readable

#: Bytes of a file of data, unpacked; of memory that its content may take; and of a tokenizer's files.
UNPACKED, MEMORY, TOKENIZER = 256_000_000, 500_000_000, 100_000_000
#: Characters of one text (a context, a question, a sentence, a cell or a line of running text), columns of a table, and
#: lines of a file, blank ones too, or rows.
CHARACTERS, COLUMNS, LINES = 1_000_000, 1_000, 1_000_000
#: Multiplies all limits.
FACTOR = "SPLORA_LIMITS"
#: Estimated bytes of a row and of a cell of a table, beside its characters; and of what makes JSON's values.
ROW, CELL = 256, 64
_SIGNS = {"{": 120, "[": 64, ":": 24, ",": 24, '"': 12}

Lines = Iterable[tuple[int, str]]


def limit(most: int) -> int:
    """One of the limits above, times what the environment says.

    Raises:
        InputError: `SPLORA_LIMITS` is no number above 0.
    """
    factor = os.environ.get(FACTOR, "1")
    try:
        allowed = int(most * float(factor))
    except (ValueError, OverflowError):
        allowed = 0
    if allowed < 1:
        raise InputError(f"{FACTOR} is {factor!r} in the environment; a number above 0 is needed, such as 4.")
    return allowed


class Budget:
    """The memory that the content of one file may take, spent while it is read."""

    def __init__(self, where: str, most: int = MEMORY) -> None:
        self.where, self.most = where, limit(most)
        self.left = self.most

    def take(self, cost: int, at: str = "") -> None:
        """Spend bytes.

        Raises:
            InputError: more than are left; `at` tells how far the reader came.
        """
        self.left -= cost
        if self.left < 0:
            where = f"{self.where}: {at}" if at else self.where
            raise InputError(
                f"{where}: too much to read: the content would take more than {megabytes(self.most)} of memory; "
                f"{more_allowed()}."
            )


def megabytes(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / 1e6:,.0f} MB" if count >= 1e6 else f"{count:,} bytes"


def more_allowed() -> str:
    """The end of every sentence about a limit."""
    return f"pass a smaller file, or set {FACTOR}=4 to allow four times as much"


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file's bytes, unpacked where its name ends in `.gz`.

    Raises:
        InputError: it cannot be opened or read, is damaged, or is compressed under another name.
    """
    compressed = path.suffix.lower() == ".gz"
    try:
        if compressed:
            with gzip.open(path, "rb") as file:
                yield cast("IO[bytes]", file)
        else:
            with path.open("rb") as plain:
                if plain.peek(2)[:2] == b"\x1f\x8b":
                    raise InputError(f"{path}: is compressed; its name must end in .gz, or unpack it.")
                yield plain
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read as compressed UTF-8 ({error}).") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from None


def read_bytes(path: Path, most: int = UNPACKED) -> bytes:
    """All bytes of a file, unpacked.

    Raises:
        InputError: as `opened`, or there are more than `most`.
    """
    allowed = limit(most)
    with opened(path) as file:
        content = file.read(allowed + 1)
    if len(content) > allowed:
        _refuse_size(path, allowed)
    return content


def read_text(path: Path, most: int = UNPACKED, budget: Budget | None = None) -> str:
    """A file's text, without the mark that may stand at its start.

    Raises:
        InputError: as `read_bytes`; it is not UTF-8; or as text it would take too much memory.
    """
    content, budget = read_bytes(path, most), budget or Budget(str(path))
    budget.take(_size_as_text(content) + len(content))
    text = decoded(content, str(path))
    budget.left += len(content)
    return text


def read_lines(path: Path, budget: Budget | None = None) -> Generator[tuple[int, str]]:
    """Numbers, from 1, and texts of the lines of a file, with their ends; only what is asked for is read.

    Args:
        budget: pays for what very long lines take as text, beside what the caller takes for them.

    Raises:
        InputError: as `opened`; there are more than `UNPACKED` bytes or `LINES`; or a line is not UTF-8 or holds a NUL.
    """
    allowed, lines = limit(UNPACKED), limit(LINES)
    left, number = allowed, 0
    with opened(path) as file:
        while line := file.readline(left + 1):
            left -= len(line)
            number += 1
            if left < 0:
                _refuse_size(path, allowed)
            if number > lines:
                raise InputError(f"{path}: has more than {lines:,} lines, the most that are read; {more_allowed()}.")
            if len(line) > CHARACTERS:  # as text it may be four times as long
                (budget or Budget(str(path))).take(_size_as_text(line), f"line {number}")
            yield number, decoded(line, str(path), number)


def decoded(content: bytes, where: str, line: int = 0) -> str:
    """UTF-8 as text; `line`: number of the line that it is, or 0 where it is the whole file.

    Raises:
        InputError: it is none, or holds a NUL, which no text has; with its line.
    """
    place = content.find(0)
    if place >= 0:
        number = line or content.count(b"\n", 0, place) + 1
        raise InputError(f"{where}: line {number}: holds a NUL byte: damaged, or UTF-16; save the file as UTF-8.")
    try:
        return content.decode("utf-8-sig" if line < 2 else "utf-8")
    except UnicodeDecodeError as error:
        number = line or content.count(b"\n", 0, error.start) + 1
        found = error.object[error.start]  # the codec counts from behind the mark
        raise InputError(
            f"{where}: line {number}: is not UTF-8 (byte 0x{found:02x}); save the file as UTF-8."
        ) from None


def parse_json(text: str, where: str, line: int = 0, budget: Budget | None = None) -> Any:
    """The value of a JSON text; `line`: number of the line that it is, or 0 where it is the whole file.

    Raises:
        InputError: it is not JSON, too deep, holds a number of thousands of digits, or would take too much memory.
    """
    (budget or Budget(where)).take(json_cost(text), f"line {line:,}" if line else "")
    try:
        return json.loads(text.rstrip() if line else text)
    except RecursionError:
        raise InputError(f"{where}: line {line or 1}: is nested too deeply.") from None
    except json.JSONDecodeError as error:
        at_end = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        finding = "is cut off" if at_end and not line else "is not JSON"
        place = f"line {line or error.lineno}: {finding} at column {error.colno}"
        raise InputError(f"{where}: {place} ({error.msg}).") from None
    except ValueError:  # of `int`, of a text of too many digits
        place = f"{where}: line {line}" if line else where
        raise InputError(f"{place}: holds a whole number of thousands of digits, which is none of data.") from None


def json_cost(text: str) -> int:
    """Bytes that the values of a JSON text take, estimated from the signs between them before it is parsed."""
    return len(text) + sum(cost * text.count(sign) for sign, cost in _SIGNS.items())


def check_text(text: str, where: str) -> None:
    """Refuse a text that is too long, or that holds half a character and so could not be written at the end.

    Raises:
        InputError: otherwise; `where` names it.
    """
    if len(text) > CHARACTERS and len(text) > limit(CHARACTERS):
        raise InputError(
            f"{where} holds a text of {len(text):,} characters; at most {limit(CHARACTERS):,} are read; "
            f"{more_allowed()}."
        )
    half = half_character(text)
    if half:
        raise InputError(f"{where} holds half a character ({half}).")


def half_character(text: str) -> str | None:
    """The first half of a surrogate pair that stands alone in a text, as it is escaped; None where there is none."""
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return readable(text[error.start])
    return None


def kind(value: Any) -> str:
    """What a value of JSON is, for a sentence."""
    names = {str: "a text", bool: "true/false", int: "a number", float: "a number", list: "a list", type(None): "null"}
    return {**names, dict: "an object"}.get(type(value), type(value).__name__)


def _refuse_size(path: Path, allowed: int) -> NoReturn:
    unpacked = " unpacked" if path.suffix.lower() == ".gz" else ""
    raise InputError(f"{path}: has more than {megabytes(allowed)}{unpacked}, the most that is read; {more_allowed()}.")


def _size_as_text(content: bytes) -> int:
    """Bytes that UTF-8 takes once it is decoded: one per character, or two or four where any character needs them."""
    import numpy as np

    values = np.frombuffer(content, np.uint8)
    step, largest, characters = 1 << 24, 0, 0
    for begin in range(0, len(values), step):
        part = values[begin : begin + step]
        largest = max(largest, int(part.max()))
        characters += int(np.count_nonzero((part & 0xC0) != 0x80))
    return characters * (4 if largest >= 0xF0 else 2 if largest >= 0xC4 else 1)
