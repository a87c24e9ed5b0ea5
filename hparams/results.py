"""One line per run in ``results.csv`` and ``results.xlsx``: reported beside measured scores.

The CSV is always written (`results_csv`); the workbook takes over every line of the CSV, so that it catches up after
it could not be written (open in a program that locks it). Columns and sheets of others are kept. Neither file can end
a sweep: whatever is wrong with one of them is a sentence.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from splora.errors import InputError
from splora.files import remove_leftovers, replacing
from splora.hparams.grid import boundaries
from splora.hparams.results_csv import read_table, write_table
from splora.hparams.seeds import with_means
from splora.json_values import one_line, table
from splora.locks import holding
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
_COUNTS = ("adapter_bytes", "model_bytes", "parameters_kept", "peak_memory_bytes", "seed")
#: What a run serves, by column: where it stands in the result.
_SERVED = {
    "macs_kept": ("macs_kept",),
    "parameters_kept": ("parameters", "kept"),
    "latency_ms": ("latency_ms", "pruned"),
    "dense_latency_ms": ("latency_ms", "dense"),
    "model_bytes": ("model_bytes",),
}
_TEXTS = ("sheet", "exp_id", "model", "task", "method", "adapter", "run")
#: A text that is a number and nothing else: no 007, no 1_000, no nan.
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
#: Seconds that runs which end together wait for each other, and bytes of a workbook unpacked that is still read.
_PATIENCE, _LARGEST = 60.0, 200 * 2**20
#: Cells of merged ranges, which a workbook of results hardly has.
_MOST_MERGED = 1_000_000
_MERGED = re.compile(rb"""<(?:\w+:)?mergeCell\s[^>]*?ref\s*=\s*["']([^"']*)""")
_KEY = ("sheet", "exp_id", "run")
#: Of several seeds of one row, the mean of these is told beside that of the scores.
_AVERAGED = (
    *("remaining_weights_percent", "learned_weights_percent", *_SERVED),
    *("adapter_bytes", "seconds", "peak_memory_bytes"),
)
_DEVIATION = "_deviation"
COLUMNS = (
    *("sheet", "exp_id", "model", "task", "method", "adapter", "final_threshold", "final_lambda"),
    *("reported_density", "remaining_weights_percent", "learned_weights_percent"),
    *(name for pair in _SCORES for name in pair),
    *_SERVED,
    *("adapter_bytes", "seconds", "peak_memory_bytes", "seed", "run"),
)


#: A finished run: its specification, what its ``result.json`` holds, and its folder.
Run = tuple[RunSpecification, Mapping[str, Any], str | os.PathLike[str]]


def line(spec: RunSpecification, result: Mapping[str, Any], run: str | os.PathLike[str]) -> dict[str, Any]:
    """A run's line: its settings, its published figures and what its ``result.json`` holds.

    Args:
        run: the run's folder. A row run again into the same folder replaces its line; into another, adds one.
    """
    metrics = table(result.get("metrics"))
    values = {"run": Path(run).as_posix(), "method": spec.pruning_method}
    for name in COLUMNS:
        if name in _SERVED:
            found: Any = result
            for key in _SERVED[name]:
                found = table(found).get(key)
            values[name] = _simple(found)
        elif name not in values:
            values[name] = _simple(result.get(name, metrics.get(name, getattr(spec, name, None))))
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
        InputError: the CSV itself cannot be written; then nothing was.
    """
    base = Path(folder)
    with holding(base / f".{NAME}.lock", f"{base}: another command adds results", wait=_PATIENCE):
        # Other commands may be writing beside these files, and theirs are not touched.
        remove_leftovers(base, (f"{NAME}.csv", f"{NAME}.xlsx"))
        found = read_table(base / f"{NAME}.csv", _TEXTS)
        lines = found.lines
        for run in runs:
            lines = _merge(lines, line(*run))
        lines = with_means(lines, _score_columns(lines), _AVERAGED, _typed)
        write_table(base / f"{NAME}.csv", lines, COLUMNS)
        try:
            _write_workbook(base / f"{NAME}.xlsx", lines)
        except InputError as error:
            told = f"The results are in {base / NAME}.csv; the workbook takes them over when the next run is recorded."
            return [*found.notices, *(f"{problem} {told}" for problem in error.problems)]
    return list(found.notices)


def _merge(lines: Sequence[Mapping[str, Any]], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    kept = [dict(old) for old in lines]
    for old in kept:
        if _key(old) == _key(new):
            old.update(new)
            return kept
    return [*kept, dict(new)]


def _score_columns(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Scores that were measured: those with a published counterpart, and what else a run's metrics hold."""
    names = dict.fromkeys([measured for _, measured in _SCORES] + [name for values in lines for name in values])
    other = [name for name in names if name not in COLUMNS and not name.endswith(_DEVIATION)]
    measured = [name for _, name in _SCORES] + other
    return [name for name in measured if any(isinstance(_typed(name, line.get(name)), int | float) for line in lines)]


def _key(values: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(_told(values.get(name)) for name in _KEY)


def _told(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():  # as LibreOffice stores an EXP ID
        value = int(value)
    return "" if value is None else str(value)


def _simple(value: Any) -> Any:
    """What a damaged result may hold instead of a number or text, as a text."""
    return value if value is None or isinstance(value, str | int | float) else one_line(str(value))


def _typed(name: str, value: Any) -> Any:
    """A value as a workbook's cell: a CSV text that is a number as one, and nothing that Excel cannot open."""
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    if isinstance(value, str):
        if value == "":
            return None
        if _NUMBER.fullmatch(value) and (name not in _TEXTS or (name == "exp_id" and value.isdigit())):
            return _typed(name, int(value) if value.lstrip("-").isdigit() and len(value) < 16 else float(value))
        return str(ILLEGAL_CHARACTERS_RE.sub(" ", value)).encode("utf-8", "replace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) > 2**53:
        return _typed(name, float(value)) if abs(value) < 1e300 else str(value)
    return value


def _write_workbook(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    from openpyxl import Workbook, load_workbook

    if path.with_name(f"~${path.name}").exists():
        raise InputError(f"{path}: is open in Excel and was left as it is.")
    if path.exists() and not os.access(path, os.W_OK):
        raise InputError(f"{path}: is not writable and was left as it is.")
    try:
        if path.exists():
            _refuse_large(path)
        book = load_workbook(path) if path.exists() else Workbook()
    except InputError:
        raise
    except Exception:  # what is damaged makes openpyxl fail anywhere, in ways that it does not name
        raise InputError(f"{path}: cannot be read as a workbook and was left as it is.") from None
    try:
        _update(book, lines, is_new=not path.exists())
        with replacing(path) as beside:
            book.save(beside)
    except InputError:
        raise
    except Exception as error:
        told = one_line(f"{type(error).__name__}: {error}", 100)
        raise InputError(f"{path}: cannot be brought up to date ({told}) and was left as it is.") from error


def _refuse_large(path: Path) -> None:
    with zipfile.ZipFile(path) as parts:
        size = sum(part.file_size for part in parts.infolist())
        sheets = [part for part in parts.infolist() if part.filename.startswith("xl/worksheets/")]
        merged = sum(map(_merged, (parts.open(part).read(part.file_size + 1) for part in sheets if size <= _LARGEST)))
    if merged > _MOST_MERGED:
        raise InputError(f"{path}: has merged ranges over {merged:,} cells and was left as it is.")
    if size > _LARGEST:
        raise InputError(
            f"{path}: has {size / 2**20:,.0f} MiB when unpacked, at most {_LARGEST // 2**20} are read, and was left "
            "as it is."
        )


def _merged(sheet: bytes) -> int:
    """Cells of a sheet's merged ranges, each of which the library would make."""
    found = (match[1].decode("ascii", "replace") for match in _MERGED.finditer(sheet))
    ends = (boundaries(name) for name in found)
    return sum((right - left + 1) * (low - top + 1) for left, top, right, low in ends)


def _update(book: Any, lines: Sequence[Mapping[str, Any]], is_new: bool) -> None:
    if _SHEET not in book.sheetnames:
        sheet = book.create_sheet(_SHEET, 0)
        if is_new:
            book.remove(book.worksheets[1])  # the empty sheet that a new workbook begins with
    else:
        sheet = book[_SHEET]
    _fill(
        sheet, [{str(_typed("run", name)): _typed(name, value) for name, value in values.items()} for values in lines]
    )


def _fill(sheet: Any, lines: Sequence[Mapping[str, Any]]) -> None:
    from openpyxl.styles import Font
    from openpyxl.utils import get_column_letter

    columns = {str(cell.value): cell.column for cell in sheet[1] if cell.value is not None} if sheet.max_row else {}
    for name in dict.fromkeys([*COLUMNS, *(name for values in lines for name in values)]):
        if name not in columns:
            columns[name] = max(columns.values(), default=0) + 1
            heading = sheet.cell(1, columns[name], name)
            heading.font, heading.data_type = Font(bold=True), "s"
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
