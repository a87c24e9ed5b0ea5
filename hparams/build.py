"""Writes the project's own workbook: ``python -m splora.hparams.build``. The same rows give the same bytes.

The catalogue is the source of what is shipped, workbook and `configs/`; nothing that runs reads it. Whoever edits the
workbook runs what they edited, and building it anew puts the catalogue's rows back.
"""

from __future__ import annotations

import datetime
import io
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openpyxl import Workbook
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.datavalidation import DataValidation
from openpyxl.worksheet.worksheet import Worksheet

from splora.files import replacing
from splora.hparams.catalogue import catalogue
from splora.hparams.cells import kinds
from splora.hparams.rows import COLUMNS, REQUIRED
from splora.hparams.workbook import OWN
from splora.training.specification import FIELDS, RunSpecification

_HEADING = 2  # row 1 names the groups
_ROOM = 1000  # rows that drop-down lists and limits reach to
_SOURCE = "# source"
_FILL = PatternFill("solid", fgColor="DDE7F0")
_EPOCH = datetime.datetime(2024, 1, 1)
_SCIENTIFIC = ("learning_rate", "init_range", "weight_decay")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the workbook to the path given, by default into this folder."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    path = Path(given[0]) if given else OWN
    with replacing(path) as beside:
        beside.write_bytes(workbook_bytes())
    print(f"wrote {path}")


def workbook_bytes() -> bytes:
    """The workbook as the bytes of an xlsx file, equal for equal rows."""
    book = Workbook()
    book.remove(book.worksheets[0])
    for name, rows in catalogue().items():
        _write_runs(book.create_sheet(name), rows)
    _write_columns(book.create_sheet("Columns"))
    book.properties.creator = "splora"
    book.properties.created = _EPOCH
    buffer = io.BytesIO()
    book.save(buffer)
    return _timeless(buffer.getvalue())


def column_order() -> list[str]:
    """The columns, groups together, groups in the order of their first field."""
    groups = list(dict.fromkeys(FIELDS[name].metadata["group"] for name in COLUMNS))
    return sorted(COLUMNS, key=lambda name: groups.index(FIELDS[name].metadata["group"]))


def relevant(spec: RunSpecification, name: str) -> bool:
    """Whether a row's cell is filled: settings of methods and adapters that it does not use stay empty."""
    if "_block_" in name:
        return spec.pruning_method != "none" or spec.adapter == "splopa"
    if name in ("initial_threshold", "final_threshold", "initial_warmup", "final_warmup", "pruning_units"):
        return spec.pruning_method != "none"
    if name == "threshold_of":
        return spec.criterion.is_global
    if name in ("prune_first_budget", "prune_first_samples"):
        return spec.prune_first != "none"
    if name in ("mask_init", "mask_scale"):
        return spec.criterion.has_scores
    if name == "final_lambda":
        return spec.regularization != "none"
    if name in ("alpha_ce", "alpha_distil", "alpha_hidden", "alpha_attention", "hidden_weights", "temperature"):
        return spec.teacher_name_or_path is not None
    if name.startswith("splora_"):
        return spec.adapter == "splora"
    if "splopa_" in name:
        return spec.adapter == "splopa"
    if name.startswith("lora_"):
        return spec.adapter == "lora"
    return True


def number_format(name: str) -> str:
    """Excel's format of a field's numbers: 3e-05 shows as 3E-05."""
    types = kinds(name)
    if "float" not in types:
        return "0" if "int" in types else "General"
    if any(part in name for part in _SCIENTIFIC):
        return "0.##E+00"
    return "0.0" if name.startswith("reported_") else "General"


def _write_runs(sheet: Worksheet, rows: Sequence[tuple[RunSpecification, str]]) -> None:
    columns = column_order()
    sheet.append([])
    sheet.append([*columns, _SOURCE])
    seen = ""
    for column, name in enumerate(columns, start=1):
        if FIELDS[name].metadata["group"] != seen:
            seen = FIELDS[name].metadata["group"]
            sheet.cell(1, column, seen)
    for spec, source in rows:
        values = [getattr(spec, name) if relevant(spec, name) else None for name in columns]
        sheet.append([*values, source])
    _style(sheet, [*columns, _SOURCE])
    for column, name in enumerate(columns, start=1):
        for number in range(_HEADING + 1, sheet.max_row + 1):
            sheet.cell(number, column).number_format = number_format(name)
        validation = _validation(name)
        if validation is not None:
            letter = get_column_letter(column)
            validation.add(f"{letter}{_HEADING + 1}:{letter}{_ROOM}")
            sheet.add_data_validation(validation)
    sheet.freeze_panes = "C3"
    sheet.auto_filter.ref = f"A{_HEADING}:{get_column_letter(len(columns) + 1)}{sheet.max_row}"


def _style(sheet: Worksheet, headings: Sequence[str]) -> None:
    for column, cells in enumerate(sheet.iter_cols(max_col=len(headings)), start=1):
        for cell in cells[:_HEADING]:
            cell.font, cell.fill = Font(bold=True), _FILL
        width = max(len(headings[column - 1]) + 4, *(len(_shown(cell.value)) for cell in cells[1:]))
        sheet.column_dimensions[get_column_letter(column)].width = min(width + 1, 50)


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value or "")


def _validation(name: str) -> DataValidation | None:
    limits, types = FIELDS[name].metadata, kinds(name)
    if "choices" in limits:
        rule = DataValidation(type="list", formula1=f'"{",".join(limits["choices"])}"')
    elif "bool" in types:
        rule = DataValidation(type="list", formula1='"TRUE,FALSE"')
    elif name == "exp_id":
        rule = DataValidation(type="whole", operator="greaterThanOrEqual", formula1="1")
    elif "minimum" in limits and "maximum" in limits:
        rule = DataValidation(
            type="decimal", operator="between", formula1=limits["minimum"], formula2=limits["maximum"]
        )
    elif "minimum" in limits:
        rule = DataValidation(operator="greaterThanOrEqual", formula1=limits["minimum"])
        rule.type = "whole" if "int" in types else "decimal"
    elif "above" in limits:
        rule = DataValidation(type="decimal", operator="greaterThan", formula1=limits["above"])
    elif "float" in types:
        rule = DataValidation(type="decimal", operator="between", formula1="-1E+300", formula2="1E+300")
    else:
        return None
    rule.allow_blank, rule.showErrorMessage, rule.showInputMessage = name not in REQUIRED, True, True
    rule.errorTitle, rule.error = name[:32], f"{FIELDS[name].metadata['help'][:150]} Allowed: {allowed(name)}"[:225]
    rule.promptTitle, rule.prompt = name[:32], FIELDS[name].metadata["help"][:255]
    return rule


def allowed(name: str) -> str:
    """What a column's cells may hold, in words."""
    limits, types = FIELDS[name].metadata, kinds(name)
    if "choices" in limits:
        return ", ".join(limits["choices"])
    if name == "exp_id":
        return "a whole number from 1, unique in the workbook"
    if "bool" in types:
        return "TRUE or FALSE"
    if "str" in types:
        return "text"
    kind = "a number" if "float" in types else "a whole number"
    words = {"minimum": "from", "above": "above", "maximum": "up to"}
    return " ".join([kind, *(f"{word} {limits[limit]:g}" for limit, word in words.items() if limit in limits)])


def _write_columns(sheet: Worksheet) -> None:
    headings = ("Group", "Column", "Meaning", "Allowed", "When empty", "Unit")
    sheet.append(["What each column means; headings that begin with # hold notes, which are not read."])
    sheet.append(headings)
    for name in column_order():
        field = FIELDS[name]
        default = "must be filled" if name in REQUIRED else "none" if field.default is None else str(field.default)
        unit = field.metadata.get("unit", "")
        sheet.append([field.metadata["group"], name, field.metadata["help"], allowed(name), default, unit])
    _style(sheet, headings)
    for row in sheet.iter_rows(min_row=_HEADING + 1):
        for cell in row:
            cell.alignment = Alignment(wrap_text=True, vertical="top")
    sheet.column_dimensions["A"].width = 16
    sheet.column_dimensions["C"].width = 70
    sheet.freeze_panes = "A3"


def _timeless(data: bytes) -> bytes:
    """The same archive with every time in it set to a fixed one."""
    fixed = _EPOCH.strftime("%Y-%m-%dT%H:%M:%SZ")
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "docProps/core.xml":
                head, _, rest = content.partition(b"<dcterms:modified")
                opening, _, tail = rest.partition(b">")
                content = head + b"<dcterms:modified" + opening + b">" + fixed.encode() + tail[tail.index(b"<") :]
            info = zipfile.ZipInfo(name, _EPOCH.timetuple()[:6])
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o600 << 16
            new.writestr(info, content)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
