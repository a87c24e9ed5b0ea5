"""Small workbooks for the tests of this room, made by the functions of the fixture `sheets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from openpyxl import Workbook
from openpyxl.utils import get_column_letter

ROW: dict[str, Any] = {
    "exp_id": 1,
    "model": "a row",
    "task": "squad",
    "model_name_or_path": "bert-base-uncased",
    "per_gpu_train_batch_size": 16,
    "num_train_epochs": 3,
    "warmup_steps": 100,
    "learning_rate": 3e-5,
    "pruning_method": "topK",
    "mask_scores_learning_rate": 0.01,
    "initial_threshold": 1,
    "final_threshold": 0.5,
    "mask_init": "constant",
    "mask_scale": 0,
    "regularization": "none",
    "final_lambda": None,
    "max_steps": None,
    "adapter": "none",
    "num_splopa_prototypes": None,
    "splopa_prototype_rank": None,
    "splopa_init_range": None,
    "splopa_shared_prototypes": True,
    "teacher_name_or_path": None,
    "train_file": None,
}


def write(path: Path, sheets: Mapping[str, Sequence[Mapping[str, Any]]], headings: Sequence[str] = tuple(ROW)) -> Path:
    """A workbook of the project's layout; each row is `ROW` with changes."""
    book = Workbook()
    book.remove(book.worksheets[0])
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        sheet.append(list(headings))
        for changes in rows:
            values = {**ROW, **changes}
            sheet.append([values.get(heading) for heading in headings])
    book.save(path)
    return path


def cell_of(name: str, row: int = 2) -> str:
    """Where a field's cell stands in a workbook of `write`."""
    return f"{get_column_letter(list(ROW).index(name) + 1)}{row}"


PUBLISHED_HEADINGS = (
    *(None, None, "Model", "EXP ID", "Effective encoder remain weights %", "EM", "F1", None),
    *("per_gpu_train_batch_size", "warmup_steps", "num_train_epochs", "learning_rate", "mask_scores_learning_rate"),
    *("initial_threshold", "final_threshold", "initial_warmup", "final_warmup", "pruning_method", "mask_init"),
    *("mask_scale", "regularization", "final_lambda", "teacher_type", "teacher_name_or_path", "alpha_ce"),
    *("alpha_distil", "num_splopa_prototypes", "splopa_prototype_rank", "splopa_init_range", "Marker"),
)


def published_row(**changes: Any) -> dict[str, Any]:
    """A row of the published layout."""
    return {
        "EXP ID": "topK_*_x",
        "Effective encoder remain weights %": 90,
        "EM": 70.0,
        "F1": 80.0,
        "per_gpu_train_batch_size": 16,
        "warmup_steps": 5400,
        "num_train_epochs": 10,
        "learning_rate": 3e-5,
        "mask_scores_learning_rate": 0.01,
        "initial_threshold": 1,
        "final_threshold": 0.9,
        "initial_warmup": 1,
        "final_warmup": 2,
        "pruning_method": "topK",
        "mask_init": "constant",
        "mask_scale": 0,
        **changes,
    }


def write_published(
    path: Path, rows: Sequence[Mapping[str, Any] | None], setup: str = "bert-base-uncased/92/squad"
) -> Path:
    """A workbook of the published layout with one sheet; None makes an empty row. Rows start at 3."""
    book = Workbook()
    sheet = book.worksheets[0]
    sheet.title = "Details - SQuAD"
    sheet.append([None, None, setup, "seed=92", None, "squad-1.1 - dev"])
    sheet.append(list(PUBLISHED_HEADINGS))
    for number, row in enumerate(rows, start=3):
        for column, heading in enumerate(PUBLISHED_HEADINGS, start=1):
            if heading is not None and row is not None and row.get(heading) is not None:
                sheet.cell(number, column, row[heading])
    book.save(path)
    return path


@pytest.fixture(scope="session")
def sheets() -> SimpleNamespace:
    """The functions above."""
    return SimpleNamespace(
        write=write, write_published=write_published, published_row=published_row, cell_of=cell_of, columns=tuple(ROW)
    )
