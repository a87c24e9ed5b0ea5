"""What GLUE's tasks are: columns, labels, files and scores, and how their tab-separated tables are read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from splora.errors import InputError, nearest

logger = logging.getLogger(__name__)

#: Largest share of cut rows that is skipped instead of refused, in the one table that is published with such rows.
CUT_ROWS_ALLOWED = 0.01


@dataclass(frozen=True)
class GlueTask:
    """One task.

    Attributes:
        sentences: columns of the text, one or two.
        label: column of the label.
        labels: names in GLUE's order; empty where the label is a score to be predicted.
        metrics: what is reported, the one to judge by first.
        positive: the label that F1 is about.
        coded: whether files hold the label's number instead of its name.
        eval_files: evaluation files of a folder, by what is appended to the names of their metrics.
        no_header: where the columns stand in a file without a header.
        hub_sentences: names of the text columns on the hub, where they differ.
        skipped_labels: rows with these labels are no examples.
        cut_rows: the published table has rows torn apart by line breaks in the text.
    """

    sentences: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    positive: int = 1
    coded: bool = False
    eval_files: dict[str, str] = field(default_factory=lambda: {"": "dev.tsv"})
    no_header: dict[str, int] = field(default_factory=dict)
    hub_sentences: tuple[str, ...] = ()
    skipped_labels: frozenset[str] = frozenset()
    cut_rows: bool = False

    def files(self, split: Literal["train", "eval"]) -> dict[str, str]:
        """File names of a split in GLUE's folder, by what is appended to the names of their metrics."""
        return {"": "train.tsv"} if split == "train" else self.eval_files


TASKS: dict[str, GlueTask] = {
    "mnli": GlueTask(
        ("sentence1", "sentence2"),
        "gold_label",
        ("entailment", "neutral", "contradiction"),
        eval_files={"": "dev_matched.tsv", "_mismatched": "dev_mismatched.tsv"},
        hub_sentences=("premise", "hypothesis"),
        skipped_labels=frozenset({"-"}),
    ),
    "qqp": GlueTask(
        ("question1", "question2"),
        "is_duplicate",
        ("not_duplicate", "duplicate"),
        metrics=("accuracy", "f1"),
        coded=True,
        cut_rows=True,
    ),
    "sst2": GlueTask(("sentence",), "label", ("negative", "positive"), coded=True),
    "qnli": GlueTask(("question", "sentence"), "label", ("entailment", "not_entailment")),
    "mrpc": GlueTask(
        ("#1 String", "#2 String"),
        "Quality",
        ("not_equivalent", "equivalent"),
        metrics=("accuracy", "f1"),
        coded=True,
        hub_sentences=("sentence1", "sentence2"),
    ),
    "rte": GlueTask(("sentence1", "sentence2"), "label", ("entailment", "not_entailment")),
    "cola": GlueTask(
        ("sentence",),
        "label",
        ("unacceptable", "acceptable"),
        metrics=("matthews",),
        coded=True,
        no_header={"label": 1, "sentence": 3},
    ),
    "stsb": GlueTask(("sentence1", "sentence2"), "score", (), metrics=("pearson", "spearman")),
}


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


def read_source(source: str, task: str, split: Literal["train", "eval"]) -> dict[str, Table]:
    """The tables of a GLUE folder, or of a single file, by what the names of their metrics end in.

    Raises:
        InputError: a file is missing or is not this task's table.
    """
    description = TASKS[task]
    path = Path(source).expanduser()
    if not path.exists():
        raise InputError(f"{source}: there is no such file or folder.")
    if not path.is_dir():
        return {"": read_table(path, description)}
    files = description.files(split)
    present = {part: path / name for part, name in files.items() if (path / name).is_file()}
    if "" not in present:
        purpose = "to train" if split == "train" else "to evaluate"
        raise InputError(f"{path}: this folder has no {files['']}; it is needed {purpose} {task}.")
    return {part: read_table(file, description) for part, file in present.items()}


def count_examples(source: str, task: str, split: Literal["train", "eval"]) -> int:
    """Examples of a GLUE folder or file, read and checked as `read_source` does."""
    return sum(len(table) for table in read_source(source, task, split).values())


def read_table(path: str | Path, task: GlueTask) -> Table:
    """Read one file.

    Raises:
        InputError: it is not there, not UTF-8, or not the task's table (see `parse_table`).
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
    try:
        return parse_table(content.decode("utf-8-sig"), str(path), task)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}: line {line}: is not UTF-8 (byte 0x{content[error.start]:02x}); save the file as UTF-8."
        ) from None


def parse_table(content: str, where: str, task: GlueTask) -> Table:
    """Make examples of a table's text: lines of cells between tabs, quotes being ordinary characters.

    Raises:
        InputError: no rows, a missing column, a row with too few columns, an unknown label; with the line.
    """
    lines = [
        (number, line.rstrip("\r").split("\t")) for number, line in enumerate(content.split("\n"), 1) if line.strip()
    ]
    if not lines:
        raise InputError(f"{where}: is empty.")
    places, rows = _columns(lines[0][1], where, task), lines
    if places is None:
        places = task.no_header
    else:
        rows = lines[1:]
    if not rows:
        raise InputError(f"{where}: has a header and no rows.")
    rows = _whole_rows(rows, max(places.values()) + 1, where, task)
    label = places[task.label]
    rows = [(number, cells) for number, cells in rows if cells[label] not in task.skipped_labels]
    return Table(
        tuple([cells[places[name]] for _, cells in rows] for name in task.sentences),
        _labels([(number, cells[label].strip()) for number, cells in rows], where, task),
    )


def table_of_hub(rows: Any, where: str, task: GlueTask) -> Table:
    """Make examples of a `datasets` split; those without a label (−1) are left out.

    Raises:
        InputError: a column is missing.
    """
    names = task.hub_sentences or task.sentences
    missing = [name for name in (*names, "label") if name not in rows.column_names]
    if missing:
        raise InputError(f"{where}: has no column {missing[0]!r}; its columns are {', '.join(rows.column_names)}.")
    labels = np.asarray(rows["label"], np.int64 if task.labels else np.float64)
    table = Table(tuple(list(rows[name]) for name in names), labels)
    return table.take(np.flatnonzero(labels >= 0))


def _columns(header: list[str], where: str, task: GlueTask) -> dict[str, int] | None:
    """Where the task's columns stand, or None if the file has no header and needs none."""
    wanted = (*task.sentences, task.label)
    names = [name.strip() for name in header]
    missing = [name for name in wanted if name not in names]
    if not missing:
        return {name: names.index(name) for name in wanted}
    if task.no_header and len(missing) == len(wanted):
        return None
    raise InputError(
        f"{where}: line 1: has no column {missing[0]!r}; its columns are {', '.join(map(repr, names))}"
        f"{nearest(missing[0], names) or '.'}"
    )


def _whole_rows(
    rows: list[tuple[int, list[str]]], columns: int, where: str, task: GlueTask
) -> list[tuple[int, list[str]]]:
    cut = [(number, len(cells)) for number, cells in rows if len(cells) < columns]
    if not cut:
        return rows
    number, found = cut[0]
    first = f"line {number} has {found} columns where at least {columns} are needed"
    if not task.cut_rows or len(cut) > CUT_ROWS_ALLOWED * len(rows):
        raise InputError(f"{where}: {first} ({len(cut):,} such rows of {len(rows):,}).")
    logger.warning("%s: %d of %d rows are cut and left out; %s.", where, len(cut), len(rows), first)
    return [(number, cells) for number, cells in rows if len(cells) >= columns]


def _labels(found: Sequence[tuple[int, str]], where: str, task: GlueTask) -> npt.NDArray[Any]:
    if not task.labels:
        return _scores(found, where)
    numbers = {name: number for number, name in enumerate(task.labels)}
    if task.coded:
        numbers |= {str(number): number for number in range(len(task.labels))}
    unknown = next(((number, label) for number, label in found if label not in numbers), None)
    if unknown is not None:
        names = [f"{number} ({name})" for number, name in enumerate(task.labels)] if task.coded else task.labels
        raise InputError(
            f"{where}: line {unknown[0]}: unknown label {unknown[1]!r}; allowed are {', '.join(names)}"
            f"{nearest(unknown[1], task.labels) or '.'}"
        )
    return np.array([numbers[label] for _, label in found], np.int64)


def _scores(found: Sequence[tuple[int, str]], where: str) -> npt.NDArray[Any]:
    values = np.empty(len(found))
    for place, (number, text) in enumerate(found):
        try:
            values[place] = float(text)
        except ValueError:
            values[place] = np.nan
        if not np.isfinite(values[place]):
            raise InputError(f"{where}: line {number}: the score {text!r} is not a number.")
    return values
