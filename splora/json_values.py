"""JSON that somebody else, another version or a killed program wrote: its values, or what is wrong in a few words."""

from __future__ import annotations

import json
import math
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from splora.errors import InputError
from splora.reading import json_cost, limit, megabytes, more_allowed

#: Bytes of a file that is read (the plan of a model of 7 billion weights has 8 MB), of memory that its values may take,
#: and digits of a whole number: more is no setting and no measurement.
LARGEST_FILE, LARGEST_CONTENT, MOST_DIGITS = 16_000_000, 64_000_000, 1000
#: Magnitude up to which a number can be a measurement: sums and products of a few still have a place on an axis.
LARGEST_NUMBER = 1e30
#: Magnitude below which a number is as good as 0.
SMALLEST_NUMBER = 1e-30


def read_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no file.

    Halves of surrogate pairs, which can neither be printed nor written, come as U+FFFD.

    Raises:
        ValueError: there is something and it is no file that holds an object; the message says what it is.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("is a folder" if stat.S_ISDIR(about.st_mode) else "is no regular file")
        if about.st_size > (allowed := limit(LARGEST_FILE)):
            told = f"has {megabytes(about.st_size)}; at most {megabytes(allowed)} are read"
            raise ValueError(f"{told}: {more_allowed()}")
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error})") from error
    try:
        written = content.decode("utf-8-sig")
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from error
    if json_cost(written) > (allowed := limit(LARGEST_CONTENT)):
        raise ValueError(f"holds values that would take more than {megabytes(allowed)} of memory; {more_allowed()}")
    try:
        found = json.loads(written, parse_int=_whole_number)
        found = _printable(found) if b"\\ud" in content.lower() else found
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError("holds no JSON object")
    return found


def read_or_refuse(path: Path) -> dict[str, Any] | None:
    """As `read_object`, for a file that a sentence names by its path alone.

    Raises:
        InputError: there is something and it is no file that holds an object.
    """
    try:
        return read_object(path)
    except ValueError as error:
        raise InputError(f"{path}: {error}.") from error


def number(value: object) -> float | None:
    """A number that can be a measurement: finite, and no larger than `LARGEST_NUMBER`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:  # JSON's whole numbers have no end
        return None
    if not abs(found) <= LARGEST_NUMBER:  # nan as well
        return None
    return found if abs(found) >= SMALLEST_NUMBER else 0.0


def whole(value: object) -> int | None:
    """Such a number without its fraction."""
    found = number(value)
    return None if found is None else int(found)


def text(value: object) -> str:
    """A text or a number as text; anything else is empty."""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def table(value: object) -> dict[str, Any]:
    """An object; anything else is empty."""
    return {str(name): of for name, of in value.items()} if isinstance(value, Mapping) else {}


def numbers(value: object) -> dict[str, float]:
    """The numbers of an object that can be measurements, by name."""
    return {name: found for name, of in table(value).items() if (found := number(of)) is not None}


def texts(value: object) -> dict[str, str]:
    """The texts and numbers of an object as texts, by name."""
    return {name: found for name, of in table(value).items() if (found := text(of))}


def impossible(value: object, place: str = "") -> Iterator[str]:
    """Numbers in a JSON value that no measurement can give, as ``metrics.f1 is 1e+308``."""
    if isinstance(value, Mapping):
        for name, of in value.items():
            yield from impossible(of, f"{place}.{name}" if place else str(name))
    elif isinstance(value, int | float) and not isinstance(value, bool) and number(value) is None:
        yield f"{one_line(place, 60)} is {one_line(str(value), 20)}"


def one_line(value: str, most: int = 300) -> str:
    """A text as a line of a terminal: nothing in it moves the cursor or cannot be encoded, what is too long is cut."""
    cut = value if len(value) <= most else f"{value[: most - 1]}…"
    cut = cut.encode("utf-8", "replace").decode("utf-8")
    return "".join(" " if unicodedata.category(sign) in ("Cc", "Zl", "Zp") else sign for sign in cut)


def _whole_number(digits: str) -> int | float:
    # Python refuses to read some thousand digits; the rest of such a file is still worth reading.
    return int(digits) if len(digits) <= MOST_DIGITS else math.inf


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_printable(of) for of in value]
    if isinstance(value, dict):
        return {_printable(name): _printable(of) for name, of in value.items()}
    return value
