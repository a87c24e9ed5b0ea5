"""One line per run in ``results.csv`` and ``results.xlsx``: reported beside measured scores.

The CSV is always written; the workbook takes over every line of the CSV, so that it catches up after
it could not be written (open in a program that locks it). Columns and sheets of others are kept.
"""

from __future__ import annotations

import csv
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from splora.errors import InputError
from splora.files import remove_leftovers, replacing
from splora.training.specification import RunSpecification

NAME, _SHEET = "results", "Results"
#: Pairs of what was published and what was measured, in the table's order.
_SCORES = (
    ("reported_exact_match", "exact_match"),
    ("reported_f1", "f1"),
    ("reported_accuracy", "accuracy"),
    ("reported_accuracy_mismatched", "accuracy_mismatched"),
)
#: Fills (ARGB) of measured scores less than a point, and a point or more, below the published ones.
_BELOW, _FAR_BELOW = "FFFFF2CC", "FFF8CBAD"
_COUNTS = ("adapter_bytes", "peak_memory_bytes", "seed")
_TEXTS = ("sheet", "exp_id", "model", "task", "method", "adapter", "run")
_KEY = ("sheet", "exp_id", "run")
COLUMNS = (
    *("sheet", "exp_id", "model", "task", "method", "adapter", "final_threshold", "final_lambda"),
    *("reported_density", "remaining_weights_percent", "learned_weights_percent"),
    *(name for pair in _SCORES for name in pair),
    *("adapter_bytes", "seconds", "peak_memory_bytes", "seed", "run"),
)


#: A finished run: its specification, what its ``result.json`` holds, and its folder.
Run = tuple[RunSpecification, Mapping[str, Any], str | os.PathLike[str]]


def line(spec: RunSpecification, result: Mapping[str, Any], run: str | os.PathLike[str]) -> dict[str, Any]:
    """A run's line: its settings, its published figures and what its ``result.json`` holds.

    Args:
        run: the run's folder. A row run again into the same folder replaces its line; into another, adds one.
    """
    metrics = result.get("metrics", {})
    values = {"run": Path(run).as_posix(), "method": spec.pruning_method}
    for name in COLUMNS:
        if name not in values:
            values[name] = result.get(name, metrics.get(name, getattr(spec, name, None)))
    other = {name: value for name, value in metrics.items() if name not in values and isinstance(value, int | float)}
    return values | {"sheet": spec.sheet, "exp_id": spec.exp_id} | other


def record(
    spec: RunSpecification,
    result: Mapping[str, Any],
    run: str | os.PathLike[str],
    folder: str | os.PathLike[str] = "runs",
) -> list[str]:
    """Add or replace a run's line in ``folder/results.csv`` and ``folder/results.xlsx``; see `record_all`."""
    return record_all([(spec, result, run)], folder)


def record_all(runs: Iterable[Run], folder: str | os.PathLike[str] = "runs") -> list[str]:
    """Add or replace the lines of several runs, in one writing.

    Args:
        runs: specification, result and folder of each.

    Returns:
        Sentences on what could not be written; empty when both files are up to date.

    Raises:
        InputError: the CSV itself cannot be written.
    """
    base = Path(folder)
    base.mkdir(parents=True, exist_ok=True)
    with _alone(base / f".{NAME}.lock"):
        remove_leftovers(base)
        lines = _read_csv(base / f"{NAME}.csv")
        for run in runs:
            lines = _merge(lines, line(*run))
        _write_csv(base / f"{NAME}.csv", lines)
        try:
            _write_workbook(base / f"{NAME}.xlsx", lines)
        except InputError as error:
            told = f"The results are in {base / NAME}.csv; the workbook takes them over when the next run is recorded."
            return [f"{problem} {told}" for problem in error.problems]
    return []


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Runs that end at the same moment write one after the other (where the system can lock files)."""
    try:
        import fcntl
    except ImportError:  # Windows: the last of two simultaneous writers wins
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _merge(lines: Sequence[Mapping[str, Any]], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    kept = [dict(old) for old in lines]
    for old in kept:
        if _key(old) == _key(new):
            old.update(new)
            return kept
    return [*kept, dict(new)]


def _key(values: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple("" if values.get(name) is None else str(values[name]) for name in _KEY)


def _read_csv(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: _typed(name, text or "") for name, text in row.items() if name} for row in csv.DictReader(file)]


def _typed(name: str, text: str) -> Any:
    """A CSV text as the number it is, so that the workbook's cells are numbers."""
    if text == "":
        return None
    if name in _TEXTS:
        return int(text) if name == "exp_id" and text.isdigit() else text
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        return text


def _write_csv(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys([*COLUMNS, *(name for values in lines for name in values)]))
    with replacing(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: "" if value is None else value for name, value in values.items()} for values in lines)


def _write_workbook(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    from openpyxl import Workbook, load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    if path.with_name(f"~${path.name}").exists():
        raise InputError(f"{path}: is open in Excel and was left as it is.")
    if path.exists() and not os.access(path, os.W_OK):
        raise InputError(f"{path}: is not writable and was left as it is.")
    try:
        book = load_workbook(path) if path.exists() else Workbook()
    except (OSError, InvalidFileException, zipfile.BadZipFile, KeyError, ValueError):
        raise InputError(f"{path}: cannot be read as a workbook and was left as it is.") from None
    if _SHEET not in book.sheetnames:
        sheet = book.create_sheet(_SHEET, 0)
        if not path.exists():
            book.remove(book.worksheets[1])  # the empty sheet that a new workbook begins with
    else:
        sheet = book[_SHEET]
    _fill(sheet, lines)
    with replacing(path) as beside:
        book.save(beside)


def _fill(sheet: Any, lines: Sequence[Mapping[str, Any]]) -> None:
    from openpyxl.styles import Font
    from openpyxl.utils import get_column_letter

    columns = {str(cell.value): cell.column for cell in sheet[1] if cell.value is not None} if sheet.max_row else {}
    for name in dict.fromkeys([*COLUMNS, *(name for values in lines for name in values)]):
        if name not in columns:
            columns[name] = max(columns.values(), default=0) + 1
            sheet.cell(1, columns[name], name).font = Font(bold=True)
            sheet.column_dimensions[get_column_letter(columns[name])].width = max(len(name) + 3, 10)
    keys = {
        _key({name: sheet.cell(number, columns[name]).value for name in _KEY}): number
        for number in range(2, sheet.max_row + 1)
    }
    following = max(keys.values(), default=1) + 1
    for values in lines:
        number = keys.get(_key(values))
        if number is None:
            number, following = following, following + 1
        for name, value in values.items():
            cell = sheet.cell(number, columns[name], value)
            if isinstance(value, str):
                cell.data_type = "s"  # a text that begins with = is no formula
            else:
                cell.number_format = _number_format(name)
        for reported, measured in _SCORES:
            _colour(sheet.cell(number, columns[measured]), values.get(reported), values.get(measured))
    sheet.freeze_panes = "C2"
    sheet.auto_filter.ref = sheet.dimensions


def _colour(cell: Any, reported: Any, measured: Any) -> None:
    """A score below the published one is coloured: less than a point below it lightly. Other colours are kept."""
    from openpyxl.styles import PatternFill

    comparable = isinstance(reported, int | float) and isinstance(measured, int | float)
    missing = reported - measured if comparable else 0.0
    if missing > 0:
        cell.fill = PatternFill("solid", start_color=_FAR_BELOW if missing >= 1 else _BELOW)
    elif str(cell.fill.start_color.rgb) in (_BELOW, _FAR_BELOW):
        cell.fill = PatternFill()


def _number_format(name: str) -> str:
    if name in _COUNTS:
        return "#,##0" if name != "seed" else "0"
    if name == "learned_weights_percent":
        return "0.000"
    return "0.00" if name not in (*_TEXTS, "final_threshold", "final_lambda") else "General"
