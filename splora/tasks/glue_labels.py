"""What stands in the label's column of a GLUE task's table: names, their numbers, scores, or nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from splora.errors import SHOWN, InputError, cut, nearest
from splora.tasks.glue_tasks import GlueTask
from splora.tasks.label_names import meanings, number_of
from splora.tasks.table_files import RawTable

#: Labels of rows that have none: MNLI's without a majority, and the hub's.
UNLABELLED = frozenset({"-", "-1"})


def label_text(cell: Any, raw: RawTable, number: int) -> str:
    """A label as GLUE's files have it; 1, 1.0, true and the text `1.0` are all `1`.

    Raises:
        InputError: there is none; with its row.
    """
    if not isinstance(cell, str | int | float):
        raise InputError(f"{raw.at(number)}: {'has no label' if cell is None else f'{cut(cell)} is no label'}.")
    text = str(int(cell)) if isinstance(cell, bool) else str(cell).strip()
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text)


def label_numbers(found: Sequence[tuple[int, str]], raw: RawTable, task: GlueTask) -> npt.NDArray[np.int64]:
    """Numbers in GLUE's order of labels that are names, in any usual spelling, or such numbers; (rows,).

    Args:
        found: number of each row and its label.

    Raises:
        InputError: an unknown label; with its row and what is allowed.
    """
    written = {label for _, label in found}
    # Each spelling is looked up once, not in every row.
    if raw.names and all(label.isdigit() for label in written):
        own = meanings(raw.names, raw.where, task)
        numbers = {str(number): meaning for number, meaning in enumerate(own)}
    else:
        numbers = {label: number for label in written if (number := number_of(label, task)) is not None}
    unknown = next(((number, label) for number, label in found if label not in numbers), None)
    if unknown is not None:
        names = [f"{number} ({name})" for number, name in enumerate(task.labels)] if task.coded else task.labels
        raise InputError(
            f"{raw.at(unknown[0])}: unknown label {cut(unknown[1])}; allowed are {', '.join(names)}"
            f"{nearest(unknown[1][:SHOWN], task.labels) or '.'}"
        )
    return np.array([numbers[label] for _, label in found], np.int64)


def scores(found: Sequence[tuple[int, str]], raw: RawTable) -> npt.NDArray[np.float64]:
    """Scores of rows, (rows,).

    Raises:
        InputError: one is not a finite number; with its row.
    """
    values = np.empty(len(found))
    for place, (number, text) in enumerate(found):
        try:
            values[place] = float(text)
        except ValueError:
            values[place] = np.nan
        if not np.isfinite(values[place]):
            raise InputError(f"{raw.at(number)}: the score {cut(text)} is not a number.")
    return values
