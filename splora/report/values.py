"""Values of JSON files that somebody else, or another version, wrote: the value, or None where it is none."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no file.

    Raises:
        ValueError: there is a file and it holds no object; the message says what is wrong with it.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError("holds no JSON object")
    return found


def number(value: object) -> float | None:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:  # JSON's whole numbers have no end
        return None
    return found if math.isfinite(found) else None


def whole(value: object) -> int | None:
    """A finite number without its fraction."""
    found = number(value)
    return None if found is None else int(found)


def text(value: object) -> str:
    """A text or a number as text; anything else is empty."""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def table(value: object) -> dict[str, Any]:
    """An object; anything else is empty."""
    return {str(name): of for name, of in value.items()} if isinstance(value, Mapping) else {}


def numbers(value: object) -> dict[str, float]:
    """The finite numbers of an object, by name."""
    return {name: found for name, of in table(value).items() if (found := number(of)) is not None}


def texts(value: object) -> dict[str, str]:
    """The texts and numbers of an object as texts, by name."""
    return {name: found for name, of in table(value).items() if (found := text(of))}
