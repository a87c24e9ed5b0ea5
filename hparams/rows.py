"""Rows of the project's own layout: one heading row of field names, one run per row."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openpyxl.utils import get_column_letter

from splora.errors import cut, nearest
from splora.hparams.cells import Unfit, as_shown, from_cell, is_empty
from splora.hparams.grid import MAX_COLUMN, Grid, Unreadable, coordinate, filled_below, is_error
from splora.training.specification import FIELDS, LARGEST, RunSpecification, check

#: Fields that are columns: the sheet's name says `sheet`.
COLUMNS = tuple(name for name in FIELDS if name != "sheet")
#: Columns that every sheet has and every row fills.
REQUIRED = (
    "exp_id",
    "task",
    "model_name_or_path",
    "per_gpu_train_batch_size",
    "num_train_epochs",
    "warmup_steps",
    "learning_rate",
    "pruning_method",
)
_HEADING_ROWS = 6  # a heading stands in one of the first rows
#: A cell that could not be read makes findings about these fields guesses.
_DEPENDENT = {
    "pruning_method": {
        "initial_threshold",
        "final_threshold",
        "regularization",
        "mask_scores_learning_rate",
        "warmup_steps",
    },
    "task": {"doc_stride", "warmup_steps"},
}
_SCHEDULE = {
    "per_gpu_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_steps",
    "schedule_total_steps",
    "initial_warmup",
    "final_warmup",
}


@dataclass(frozen=True)
class Row:
    """One run of a sheet, with everything that was found wrong or interpreted in it."""

    path: str
    sheet: str
    number: int
    spec: RunSpecification
    #: Where each field's cell stands, as in ``{"pruning_method": "H14"}``, filled or not.
    cells: Mapping[str, str]
    #: Whole sentences that keep the row from running.
    problems: list[str] = field(default_factory=list)
    #: Whole sentences on what the reader made of unusual cells.
    notices: list[str] = field(default_factory=list)
    #: The published workbooks' EXP ID, which several rows may share; empty in the project's layout.
    text_id: str = ""
    #: Whether Excel shows the row: hidden and filtered rows run only when they are named.
    is_hidden: bool = False
    #: Options of the command line that replaced cells, by field.
    options: Mapping[str, str] = field(default_factory=dict)

    def place(self, name: str) -> str:
        """File, sheet, cell and field, or the option that replaced the cell, as a sentence's beginning."""
        if name in self.options:
            return self.options[name]
        where = f"cell {self.cells[name]}" if name in self.cells else f"row {self.number}"
        return f"{self.path}, sheet '{self.sheet}', {where} ({name})"


@dataclass(frozen=True)
class Sheet:
    """One sheet of runs and the problems of its headings."""

    name: str
    rows: list[Row]
    problems: list[str] = field(default_factory=list)
    #: Whole sentences on rows that are no runs and on columns that are read though nobody sees them.
    notices: list[str] = field(default_factory=list)


def read_sheet(path: Path, grid: Grid) -> Sheet | None:
    """The runs of a sheet, or None if it has no heading row of field names (a page of text)."""
    heading = _heading_row(grid)
    if heading is None:
        return None
    columns, problems = _columns(path, grid, heading)
    missing = [name for name in REQUIRED if name not in columns]
    problems += [f"{path}, sheet '{grid.name}': the column {name} is missing." for name in missing]
    numbers = sorted({*grid.rows, *(number for number, _ in grid.uncomputed)})
    hidden = {name: get_column_letter(column) for name, column in columns.items() if column in grid.hidden_columns}
    where = f"{path}, sheet '{grid.name}'"
    notices = [f"{where}, column {letter} ({name}): is hidden, but it is read." for name, letter in hidden.items()]
    rows = []
    for number in (number for number in numbers if number > heading):
        remark = _remark(grid, number, columns)
        if remark is not None:
            told = f"is no run, it holds only the remark {cut(remark)}"
            notices.append(f"{where}, row {number}: {told}.")
        elif grid.typed(number, columns.values()):
            rows.append(_read_row(path, grid, number, columns))
    return Sheet(grid.name, rows, problems, notices)


def unheaded(path: Path, grid: Grid, heading: int, columns: range = range(1, MAX_COLUMN + 1)) -> list[str]:
    """A sentence for every column that is filled below an empty heading: its cells would be dropped in silence."""
    problems = []
    for column, numbers in filled_below(grid, heading):
        uncomputed = (heading, column) in grid.uncomputed
        if column in columns and grid.cell(heading, column) is None and not uncomputed:
            first = coordinate(numbers[0], column)
            filled = f"{first} is" if len(numbers) == 1 else f"{first} and {len(numbers) - 1:,} more cells below it are"
            problems.append(
                f"{path}, sheet '{grid.name}', cell {coordinate(heading, column)}: is empty, but {filled} filled; give "
                "the column its heading, one that begins with # for notes, or clear those cells."
            )
    return problems


def unfit_heading(value: Any) -> str:
    """Why a heading cell names no column whatever it says, as a predicate; empty where it is a text."""
    if isinstance(value, Unreadable):
        return value.problem
    if is_error(value):
        return f"holds Excel's error {value}"
    return "" if isinstance(value, str) else f"is {cut(value)}; a heading is a text"


def _remark(grid: Grid, number: int, columns: Mapping[str, int]) -> str | None:
    """The text of a row that holds one text and nothing else, which is no run."""
    typed = grid.typed(number, [*grid.rows.get(number, {}), *(c for row, c in grid.uncomputed if row == number)])
    value = grid.rows.get(number, {}).get(typed[0]) if len(typed) == 1 else None
    is_a_column = bool(typed) and typed[0] in columns.values()
    return value.strip() if is_a_column and isinstance(value, str) and not is_error(value) else None


def _heading_row(grid: Grid) -> int | None:
    counts = {
        number: sum(isinstance(value, str) and _field_name(value) in COLUMNS for value in row.values())
        for number, row in grid.rows.items()
        if number <= _HEADING_ROWS
    }
    best = max(counts, key=lambda number: counts[number], default=None)
    return best if best is not None and counts[best] >= 3 else None


def _field_name(heading: Any) -> str:
    text = str(heading).strip()
    return "exp_id" if text.upper() in ("EXP ID", "EXP_ID") else text


def _columns(path: Path, grid: Grid, heading: int) -> tuple[dict[str, int], list[str]]:
    columns: dict[str, int] = {}
    problems = unheaded(path, grid, heading)
    for column in sorted({*grid.rows[heading], *(column for row, column in grid.uncomputed if row == heading)}):
        value = grid.cell(heading, column)
        name = _field_name(value)
        place = f"{path}, sheet '{grid.name}', cell {coordinate(heading, column)}"
        if value is None:
            problems.append(f"{place}: holds a formula without a computed value; type the heading.")
        elif unfit := unfit_heading(value):
            problems.append(f"{place}: {unfit}; type the column's name, or one that begins with # for notes.")
        elif name.startswith("#"):
            continue
        elif name not in COLUMNS:
            hint = nearest(name, COLUMNS) or "; a heading of notes begins with #."
            problems.append(f"{place}: {cut(name)} is not a column{hint}")
        elif name in columns:
            first = coordinate(heading, columns[name])
            problems.append(f"{place}: the column {name} stands there a second time, first in {first}.")
        else:
            columns[name] = column
    return columns, problems


def _read_row(path: Path, grid: Grid, number: int, columns: Mapping[str, int]) -> Row:
    raw = {name: grid.cell(number, column) for name, column in columns.items()}
    uncomputed = {name for name, column in columns.items() if (number, column) in grid.uncomputed}
    cells = {name: coordinate(number, column) for name, column in columns.items()}
    spec = RunSpecification(sheet=grid.name)
    row = Row(str(path), grid.name, number, spec, cells, is_hidden=number in grid.hidden_rows)
    return build_row(row, raw, uncomputed)


def build_row(row: Row, raw: Mapping[str, Any], uncomputed: set[str], text_ids: bool = False) -> Row:
    """`row` with the specification that the raw cells make; everything wrong with them is added to its problems.

    Args:
        raw: cell values by field name, None where empty; only the columns that the sheet has.
        uncomputed: fields whose cell is a formula without a value.
        text_ids: EXP IDs may be texts, as the published sheets have them.
    """
    values: dict[str, Any] = {}
    bad = set(uncomputed)
    for name in sorted(uncomputed, key=list(FIELDS).index):
        problem = "holds a formula without a computed value; type the value, or open and save the workbook in Excel"
        row.problems.append(f"{row.place(name)}: {problem}.")
    for name, value in raw.items():
        if name in bad or is_empty(name, value):
            continue
        try:
            is_number = name == "exp_id" and not text_ids
            values[name] = _exp_id(value) if is_number else from_cell(name, value)
        except Unfit as unfit:
            bad.add(name)
            row.problems.append(sentence(row, name, str(unfit)))
    spec = replace(row.spec, **values)
    unknown = {name for name in values if values[name] not in FIELDS[name].metadata.get("choices", (values[name],))}
    for name, why in _needed(spec, bad | unknown).items():
        if name in raw and name not in values and name not in bad:
            bad.add(name)
            row.problems.append(f"{row.place(name)}: is empty; {why}.")
    for found in check(spec):
        if found.field not in bad and found.field not in _guesses(bad):
            row.problems.append(sentence(row, found.field, found.message))
            bad |= {found.field} if found.field in _DEPENDENT else set()
    return replace(row, spec=spec)


def sentence(row: Row, name: str, predicate: str) -> str:
    """A finding on a field of `row` as one sentence."""
    return f"{row.place(name)}: {predicate}{'' if predicate.endswith('?') else '.'}"


def _exp_id(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"\d+", value.strip()):
        raise Unfit(f"is {cut(value.strip())} stored as text; type the number again in a cell of format General")
    value = as_shown("exp_id", value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < 1:
        raise Unfit(f"is {cut(value)}; a whole number from 1 is needed")
    if value > LARGEST:
        raise Unfit(f"is {value:.10g}; at most {LARGEST:,} is allowed")
    return int(value)


def _needed(spec: RunSpecification, bad: set[str]) -> dict[str, str]:
    """Fields that this row must fill, with the reason."""
    needed = dict.fromkeys(REQUIRED, "every row needs it")
    if spec.max_steps is not None:
        del needed["num_train_epochs"]
    if "pruning_method" not in bad and spec.pruning_method != "none":
        needed |= dict.fromkeys(("initial_threshold", "final_threshold"), f"pruning by {spec.pruning_method} needs it")
        if spec.criterion.has_scores:
            needed |= dict.fromkeys(
                ("mask_scores_learning_rate", "mask_init"), f"{spec.pruning_method} learns mask scores"
            )
    if "regularization" not in bad and spec.regularization != "none":
        needed["final_lambda"] = f"the penalty {spec.regularization} needs its weight"
    if spec.adapter == "splopa":
        names = ("num_splopa_prototypes", "splopa_prototype_rank", "splopa_init_range")
        needed |= dict.fromkeys(names, "the adapter splopa needs it")
    if spec.adapter == "splora":
        needed |= dict.fromkeys(("splora_rank", "splora_init_range"), "the adapter splora needs it")
    if spec.teacher_name_or_path is not None:
        needed |= dict.fromkeys(("alpha_ce", "alpha_distil"), "distillation from a teacher needs it")
    return needed


def _guesses(bad: set[str]) -> set[str]:
    guesses = {name for cause in bad for name in _DEPENDENT.get(cause, ())}
    return guesses | ({"warmup_steps"} if bad & _SCHEDULE else set())
