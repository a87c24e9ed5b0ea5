"""What one cell, or one ``--set`` text, means for a field: typed values or a sentence's predicate."""

from __future__ import annotations

import datetime
import re
from typing import Any

from splora.training.specification import FIELDS

#: Texts that mean "nothing here" in a cell whose field does not itself allow them as a choice.
EMPTY_WORDS = ("-", "–", "null", "none")
_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


class Unfit(ValueError):
    """A value that its field cannot hold; the message is a predicate, as in ``is '0,9'; …``."""


def kinds(name: str) -> set[str]:
    """The names of the types a field holds: some of int, float, bool, str, None."""
    return set(str(FIELDS[name].type).split(" | "))


def is_empty(name: str, value: Any) -> bool:
    """Whether a cell says nothing: blank, or `-`, `null`, `none` (any case) where that is no choice."""
    if value is None:
        return True
    if not isinstance(value, str):
        return False
    text = value.strip()
    return not text or (text.lower() in EMPTY_WORDS and text not in FIELDS[name].metadata.get("choices", ()))


def from_cell(name: str, value: Any) -> Any:
    """The typed value of a cell that is not empty. Raises `Unfit`."""
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta):
        raise Unfit(f"is the date or time {value}; Excel made it of what was typed: set the cell's format to General")
    if isinstance(value, str) and value.startswith("#") and value.rstrip("!?").isupper():
        raise Unfit(f"holds Excel's error {value}")
    allowed = kinds(name)
    if "bool" in allowed:
        return _truth(value)
    if "str" in allowed:
        return _text(name, value)
    if isinstance(value, bool):
        raise Unfit(f"is {str(value).upper()}; a number is needed")
    if isinstance(value, str):
        raise Unfit(_not_a_number(value.strip()))
    return _whole(value) if "int" in allowed else float(value)


def from_text(name: str, text: str) -> Any:
    """The typed value of a ``--set`` text; an empty word clears an optional field. Raises `Unfit`."""
    text = text.strip()
    allowed = kinds(name)
    if is_empty(name, text):
        if "None" in allowed:
            return None
        raise Unfit("is empty; a value is needed")
    if "bool" in allowed:
        return _truth(text)
    if "str" in allowed:
        return text
    try:
        number = float(text)
    except ValueError:
        raise Unfit(_not_a_number(text)) from None
    if "int" not in allowed:
        return number
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else _whole(number)


def _truth(value: Any) -> bool:
    text = str(value).strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise Unfit(f"is {value!r}; TRUE or FALSE is needed")


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if name == "model":
        return str(value)
    raise Unfit(f"is {value}; a text is needed")


def _whole(value: float) -> int:
    if value != value or value in (float("inf"), float("-inf")) or value != int(value):
        raise Unfit(f"is {value}; a whole number is needed")
    return int(value)


def _not_a_number(text: str) -> str:
    if _COMMA.fullmatch(text):
        return f"is {text!r}; write the number with a point: {text.replace(',', '.')}"
    if text.endswith("%"):
        return f"is the text {text!r}; a number without a percent sign is needed"
    try:
        float(text)
    except ValueError:
        return f"is the text {text!r}; a number is needed"
    return f"is {text!r} stored as text; type the number again in a cell of format General"
