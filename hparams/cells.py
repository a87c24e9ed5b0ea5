"""What one cell, or one ``--set`` text, means for a field: typed values or a sentence's predicate."""

from __future__ import annotations

import datetime
import re
from typing import Any

from splora.errors import cut
from splora.hparams.grid import Formatted, Unreadable, is_error
from splora.hparams.number_formats import is_near, shown
from splora.training.specification import FIELDS, LARGEST

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
    """The typed value of a cell that is not empty, as Excel shows it. Raises `Unfit`."""
    value = as_shown(name, value)
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta):
        raise Unfit(f"is the date or time {value}; Excel made it of what was typed: set the cell's format to General")
    if is_error(value):
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
    return _whole(int(text) if re.fullmatch(r"[+-]?\d{1,300}", text) else number)


def as_shown(name: str, cell: Any) -> Any:
    """What a person sees in a field's cell, as a plain value. Raises `Unfit` where it is not what the cell holds."""
    if isinstance(cell, Unreadable):
        raise Unfit(cell.problem)
    if not isinstance(cell, Formatted):
        return cell
    number, field = float(cell), FIELDS[name]
    if "bool" in kinds(name) and '"TRUE"' in cell.number_format.upper():
        return int(number)  # some programs store truth values as numbers that are shown as words
    look = shown(number, cell.number_format)
    if look.problem:
        raise Unfit(f"holds {number:.10g} and {look.problem}; set the cell's format to General")
    is_percent = field.metadata.get("unit") == "%"
    if look.is_percent and not is_percent and "float" not in kinds(name):
        raise Unfit(f"shows {100 * look.value:.10g} %; set the cell's format to General and type the number again")
    # Reported scores are compared, never trained with: their last digits may stay hidden.
    if not is_near(number, look.value) and not name.startswith("reported_"):
        seen = f"{100 * look.value:.10g} %" if look.is_percent else f"{look.value:.10g}"
        raise Unfit(f"holds {number:.10g} but shows {seen}; set the cell's format to General")
    if look.is_percent and is_percent:
        number = round(100 * number, 10)
    return int(number) if number.is_integer() and abs(number) <= 2**53 else number


def _truth(value: Any) -> bool:
    text = str(value).strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise Unfit(f"is {cut(value)}; TRUE or FALSE is needed")


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if name == "model":
        return str(value)
    if FIELDS[name].metadata.get("numbers") and isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}"  # a list of one number
    raise Unfit(f"is {str(value)[:40]}; a text is needed")


def _whole(value: float) -> int:
    if value != value or value in (float("inf"), float("-inf")) or value != int(value):
        raise Unfit(f"is {value}; a whole number is needed")
    if abs(value) > LARGEST:
        raise Unfit(f"is {float(value):.10g}; at most {LARGEST:,} is allowed")
    return int(value)


def _not_a_number(text: str) -> str:
    if _COMMA.fullmatch(text):
        return f"is {cut(text)}; write the number with a point: {text[:40].replace(',', '.')}"
    if text.endswith("%"):
        return f"is the text {cut(text)}; a number without a percent sign is needed"
    try:
        float(text)
    except ValueError:
        return f"is the text {cut(text)}; a number is needed"
    return f"is {cut(text)} stored as text; type the number again in a cell of format General"
