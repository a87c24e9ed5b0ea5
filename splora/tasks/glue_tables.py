"""From tables of any format to a GLUE task's examples: which rows count, and what their labels mean."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from splora.errors import InputError, cut
from splora.files import expanded
from splora.reading import check_text
from splora.tasks.folders import content_of, find_files
from splora.tasks.glue_columns import find_columns
from splora.tasks.glue_labels import UNLABELLED, label_numbers, label_text, scores
from splora.tasks.glue_tasks import TASKS, GlueTask
from splora.tasks.table_files import SUFFIXES, RawTable, parse_tsv, raw_of_columns, read_raw

__all__ = [
    "TASKS",
    "GlueTask",
    "Table",
    "count_examples",
    "find_source",
    "parse_table",
    "read_source",
    "read_table",
    "table_of_hub",
]

logger = logging.getLogger(__name__)

#: Largest share of cut rows that is skipped instead of refused, in the one table that is published with such rows.
CUT_ROWS_ALLOWED = 0.01

Columns = Mapping[str, str] | None


@dataclass(frozen=True)
class Table:
    """Examples of one file: texts by column, and labels (int64 in GLUE's order, or float64 scores), (examples,)."""

    texts: tuple[list[str], ...]
    labels: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: npt.NDArray[np.int64]) -> Table:
        """Only the examples with these numbers."""
        return Table(tuple([column[row] for row in rows] for column in self.texts), self.labels[rows])


def read_source(
    source: str,
    task: str,
    split: Literal["train", "eval"],
    columns: Mapping[str, str] | None = None,
    labelled: bool = True,
) -> dict[str, Table]:
    """The tables of a folder, or of a single file, by what the names of their metrics end in.

    Args:
        columns: the user's names of columns, see `find_columns`.
        labelled: read the labels, and leave rows without one out; else every row counts, and labels are -1.

    Raises:
        InputError: a file is missing or is not this task's table, or a folder holds more than one for a split.
    """
    return {
        part: _joined(
            [read_table(file, TASKS[task], columns, labelled, labelled or split == "train") for file in files]
        )
        for part, files in find_source(source, task, split).items()
    }


def find_source(source: str, task: str, split: Literal["train", "eval"]) -> dict[str, list[Path]]:
    """The files that `read_source` reads: for each part one, or its shards.

    Raises:
        InputError: there is none, or more than one that could be meant.
    """
    path = expanded(source)
    if not path.exists():
        raise InputError(f"{source}: there is no such file or folder.")
    if not path.is_dir():
        return {"": [path]}
    found = {part: find_files(path, stems, SUFFIXES) for part, stems in TASKS[task].stems(split).items()}
    if not found[""]:
        purpose = "to train" if split == "train" else "to evaluate"
        raise InputError(
            f"{path}: this folder has no {TASKS[task].files(split)['']}; it is needed {purpose} {task}. "
            f"Other endings ({', '.join(SUFFIXES[1:])}) are fine; {content_of(path)}."
        )
    return {part: files for part, files in found.items() if files}


def count_examples(
    source: str, task: str, split: Literal["train", "eval"], columns: Columns = None, labelled: bool = True
) -> int:
    """Examples of a GLUE folder or file, read and checked as `read_source` does."""
    return sum(len(table) for table in read_source(source, task, split, columns, labelled).values())


def read_table(
    path: str | Path,
    task: GlueTask,
    columns: Mapping[str, str] | None = None,
    labelled: bool = True,
    may_skip: bool | None = None,
) -> Table:
    """Read one file, of the format that its suffix says (see `table_files`); `labelled` as in `read_source`.

    Args:
        may_skip: whether rows that are cut off may be left out where they were published so; None: if `labelled`, as
            predictions are told by the numbers of rows.

    Raises:
        InputError: it cannot be read, or is not the task's table (see `parse_table`).
    """
    return _table(read_raw(path), task, columns, labelled, may_skip)


def parse_table(content: str, where: str, task: GlueTask) -> Table:
    """Make examples of a table's text: lines of cells between tabs, quotes being ordinary characters.

    Raises:
        InputError: no rows, a missing column, a row with too few columns, an unknown label; with the line.
    """
    return _table(parse_tsv(content, where), task)


def table_of_hub(
    rows: Any, where: str, task: GlueTask, columns: Mapping[str, str] | None = None, labelled: bool = True
) -> Table:
    """Make examples of a `datasets` split; those without a label (−1) are left out, unless none is asked for.

    Raises:
        InputError: a column is missing, or a row is no example.
    """
    classes = {
        name: list(feature.names)
        for name, feature in (getattr(rows, "features", None) or {}).items()
        if getattr(feature, "names", None)
    }
    content: dict[str, Iterable[Any]] = {name: list(rows[name]) for name in rows.column_names}
    return _table(raw_of_columns(where, content, classes), task, columns, labelled)


def _joined(tables: Sequence[Table]) -> Table:
    if len(tables) == 1:
        return tables[0]
    texts = zip(*(table.texts for table in tables), strict=True)
    return Table(
        tuple([text for column in columns for text in column] for columns in texts),
        np.concatenate([table.labels for table in tables]),
    )


def _table(
    raw: RawTable, task: GlueTask, columns: Columns = None, labelled: bool = True, may_skip: bool | None = None
) -> Table:
    may_skip = labelled if may_skip is None else may_skip
    head = raw.where if raw.header_line is None else f"{raw.where}: line {raw.header_line}"
    places, rows = find_columns(raw.header, head, task, columns, raw.texts, labelled), raw.rows
    if places is None:
        names = (*task.sentences, task.label) if labelled else task.sentences
        places = [task.no_header[name] for name in names]
        rows = [(raw.header_line or 1, raw.header), *rows]
    if not rows:
        raise InputError(f"{raw.where}: has a header and no rows.")
    rows = _whole_rows(rows, max(places) + 1, raw.where, task, may_skip)
    if not labelled:
        texts = tuple([cells[place] for _, cells in rows] for place in places)
        _check_texts(texts, [str(raw.header[place]) for place in places], raw, [number for number, _ in rows])
        return Table(texts, np.full(len(rows), -1, np.int64))
    raw = dataclasses.replace(raw, names=raw.classes.get(str(raw.header[places[-1]]), ()))
    labels = [label_text(cells[places[-1]], raw, number) for number, cells in rows]
    known = [place for place, label in enumerate(labels) if label not in UNLABELLED]
    if not known:
        raise InputError(f"{raw.where}: none of its {len(rows):,} rows has a label, as in a test set.")
    if len(known) < len(rows):
        _check_unlabelled(set(labels), raw, task)
        logger.warning(
            "%s: %d of %d rows have no label and are left out.", raw.where, len(rows) - len(known), len(rows)
        )
    rows = [rows[place] for place in known]
    texts = tuple([cells[place] for _, cells in rows] for place in places[:-1])
    _check_texts(texts, [str(raw.header[place]) for place in places[:-1]], raw, [number for number, _ in rows])
    found = [(number, labels[place]) for (number, _), place in zip(rows, known, strict=True)]
    return Table(texts, label_numbers(found, raw, task) if task.labels else scores(found, raw))


def _check_unlabelled(labels: set[str], raw: RawTable, task: GlueTask) -> None:
    """Refuse −1 and 1 as the two classes, and −1, 0 and 1 as three: there −1 is a class and no missing label."""
    count = len(task.labels)
    if labels == ({"-1", "1"} if count == 2 else {str(number - 1) for number in range(count)}):
        raise InputError(
            f"{raw.where}: its labels are {', '.join(sorted(labels))}; GLUE counts from 0, and -1 means no label; "
            f"write {', '.join(map(str, range(count)))}, or the names {', '.join(task.labels)}."
        )


def _whole_rows(
    rows: list[tuple[int, Sequence[Any]]], columns: int, where: str, task: GlueTask, may_skip: bool
) -> list[tuple[int, Sequence[Any]]]:
    cut = [(number, len(cells)) for number, cells in rows if len(cells) < columns]
    if not cut:
        return rows
    number, found = cut[0]
    first = f"line {number} has {found} columns where at least {columns} are needed"
    if not (task.cut_rows and may_skip) or len(cut) > CUT_ROWS_ALLOWED * len(rows):
        raise InputError(f"{where}: {first} ({len(cut):,} such rows of {len(rows):,}).")
    logger.warning("%s: %d of %d rows are cut and left out; %s.", where, len(cut), len(rows), first)
    return [(number, cells) for number, cells in rows if len(cells) >= columns]


def _check_texts(texts: tuple[list[Any], ...], names: Sequence[str], raw: RawTable, numbers: Sequence[int]) -> None:
    for name, column in zip(map(cut, names), texts, strict=True):
        for number, text in zip(numbers, column, strict=True):
            if not isinstance(text, str):
                finding = f"no text in column {name}" if text is None else f"{cut(text)} in column {name}"
                raise InputError(f"{raw.at(number)}: has {finding}; a text is needed.")
            check_text(text, f"{raw.at(number)}: column {name}")
