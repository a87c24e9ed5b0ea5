"""Which rows an ``--exp-id`` means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from splora.errors import InputError, nearest
from splora.hparams.folders import folder_name as folder_name
from splora.hparams.rows import Row
from splora.hparams.workbook import Workbook

_RANGE = re.compile(r"([0-9]{1,10})-([0-9]{1,10})")
_ROW = re.compile(r"row:([0-9]{1,10})", re.IGNORECASE)


def select(book: Workbook, exp_ids: Iterable[str], sheet: str | None = None) -> list[Row]:
    """The rows that `exp_ids` name, each once, in the order named.

    Args:
        exp_ids: ``12``, ``14-18``, lists with commas, a text ID with or without its density, ``row:5``
            (Excel's row number; needs `sheet` where the workbook has several).
        sheet: look in this sheet only.

    Raises:
        InputError: IDs that name no row, or more than one, with what could be meant; all of them at once.
    """
    rows = book.sheet(sheet).rows if sheet is not None else book.rows
    where = f"{book.path}, sheet '{sheet}'" if sheet is not None else str(book.path)
    chosen: dict[tuple[str, int], Row] = {}
    problems: list[str] = []
    for word in (part.strip() for exp_id in exp_ids for part in _parts(exp_id)):
        try:
            found = _find(rows, word, where)
        except InputError as error:
            problems += error.problems
        else:
            chosen |= {(row.sheet, row.number): row for row in found if (row.sheet, row.number) not in chosen}
    if problems:
        raise InputError(problems)
    return list(chosen.values())


def _parts(exp_id: str) -> list[str]:
    # A list of numbers and ranges; a text ID is taken whole, whatever it holds.
    return exp_id.split(",") if re.fullmatch(r"[\d\s,-]+", exp_id) else [exp_id]


def _find(rows: Sequence[Row], word: str, where: str) -> list[Row]:
    if (match := _ROW.fullmatch(word)) is not None:
        return [_one([row for row in rows if row.number == int(match[1])], word, where)]
    if (match := _RANGE.fullmatch(word)) is not None:
        return _range(rows, int(match[1]), int(match[2]), word, where)
    exact = [row for row in rows if str(row.spec.exp_id) == word]
    if not exact:
        exact = [row for row in rows if row.text_id and word in _spellings(row)]
    if exact or not rows:
        return [_one(exact, word, where)]
    raise InputError(f"{where}: has no EXP ID {word!r}{nearest(word, _all_names(rows)) or _span(rows)}")


def _spellings(row: Row) -> set[str]:
    density = row.spec.reported_density
    return {row.text_id} if density is None else {row.text_id, f"{row.text_id}_{density:.1f}%"}


def _all_names(rows: Sequence[Row]) -> list[str]:
    # Numbers have no spelling mistakes: 62 is not meant by 63.
    return [str(row.spec.exp_id) for row in rows if not isinstance(row.spec.exp_id, int)]


def _span(rows: Sequence[Row]) -> str:
    numbers = sorted(row.spec.exp_id for row in rows if isinstance(row.spec.exp_id, int))
    return f"; it has {_runs(numbers)}." if numbers else "; --list shows them."


def _runs(numbers: Sequence[int]) -> str:
    """Sorted numbers with neighbours drawn together, as in ``1-10, 101``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number - runs[-1][1] <= 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _range(rows: Sequence[Row], first: int, last: int, word: str, where: str) -> list[Row]:
    if first > last:
        raise InputError(f"{where}: the range {word} runs backwards; write {last}-{first}.")
    found = {
        row.spec.exp_id: row for row in rows if isinstance(row.spec.exp_id, int) and first <= row.spec.exp_id <= last
    }
    if last - first + 1 != len(found):
        missing = next(number for number in range(first, last + 1) if number not in found)
        raise InputError(f"{where}: has no EXP ID {missing}, which the range {word} asks for{_span(rows)}")
    return [found[number] for number in range(first, last + 1)]


def _one(found: Sequence[Row], word: str, where: str) -> Row:
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(f"{where}: {word!r} names no row of a run.")
    choices = ", ".join(f"'{row.spec.exp_id}' (sheet '{row.sheet}', row {row.number})" for row in found)
    raise InputError(f"{where}: {word!r} fits {len(found)} rows; choose one: {choices}.")
