"""Rows of the published workbooks' layout: two heading rows, merged labels, group codes, text EXP IDs.

The published sheets are the logs of Sanh et al. (2005.07683) continued with block pruning and SPLoPA runs, and
they speak in ways that a person understands and a program must be told; each such reading leaves a notice.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from splora.errors import cut, nearest
from splora.hparams.grid import MAX_COLUMN, Formatted, Grid, Unreadable, coordinate
from splora.hparams.number_formats import shown
from splora.hparams.rows import Row, Sheet, build_row, sentence, unfit_heading, unheaded
from splora.tasks.registry import REGISTRY, WINDOWED
from splora.training.specification import FIELDS, RunSpecification

#: Columns without headings, left of the setup in column C.
_CODES = 2
DENSITY = "Effective encoder remain weights %"
_IGNORED = ("VLKUP Code", "ent", "acc&f1", "Marker")
_SCORES = {
    "EM": "reported_exact_match",
    "F1": "reported_f1",
    "f1": "reported_f1",
    "acc": "reported_accuracy",
    "acc dev-MM": "reported_accuracy_mismatched",
}
_PRUNING = ("pruning_method", "final_threshold", "initial_threshold", "mask_init", "mask_scores_learning_rate")
_REQUIRED = ("per_gpu_train_batch_size", "warmup_steps", "num_train_epochs", "learning_rate", "pruning_method")
_SPLOPA = ("num_splopa_prototypes", "splopa_prototype_rank", "splopa_init_range")
#: Initial range of prototypes in the program that the published rows were run with, where a row does not state one.
_PUBLISHED_RANGE = 1e-4
#: Windows that SQuAD 1.1's training set makes at 384 tokens with stride 128.
_EXAMPLES = {name: task.examples for name, task in REGISTRY.items() if task.examples} | {"squad": 88_524}
#: BERT-base: parameters of the encoder layers, and those that are never pruned (biases and layer norms).
_ENCODER, _UNPRUNED = 85_054_464, 119_808


def read_sheet(path: Path, grid: Grid) -> Sheet | None:
    """The runs of a published sheet, or None if the sheet is not laid out so."""
    headings = ((n, {v for v in grid.rows.get(n, {}).values() if isinstance(v, str)}) for n in (1, 2, 3))
    heading = next((n for n, titles in headings if {"EXP ID", DENSITY} <= titles), None)
    if heading is None:
        return None
    columns, problems = _columns(path, grid, heading)
    problems += [f"{path}, sheet '{grid.name}': the column {n} is missing." for n in _REQUIRED if n not in columns]
    setup, setup_problems = _setup(path, grid)
    problems += setup_problems
    rows: list[Row] = []
    label, last = "", heading
    in_percent: set[int] = set()
    for number in sorted(grid.rows):
        cells = grid.rows[number]
        if number <= heading or not grid.typed(number, columns.values()):
            continue
        # Labels are merged over their rows: the first cell speaks until a gap or the next label.
        told = grid.cell(number, columns.get("model", 0))
        label = str(told).replace("\n", " ") if told is not None else label if number == last + 1 else ""
        last = number
        density = cells.get(columns.get("reported_density", 0))
        if isinstance(density, Formatted) and shown(density, density.number_format).is_percent:
            in_percent.add(number)
        rows.append(_read_row(path, grid, number, columns, replace(setup, model=label)))
        if isinstance(told, Unreadable):
            rows[-1].problems.append(sentence(rows[-1], "model", told.problem))
    _densities(rows, in_percent)
    return Sheet(grid.name, [_identify(row, rows) for row in rows], problems)


def steps(spec: RunSpecification) -> int | None:
    """Optimizer steps of the published run, for `schedule_total_steps`."""
    if spec.task not in _EXAMPLES:
        return None
    try:
        return math.ceil(math.ceil(_EXAMPLES[spec.task] / spec.per_gpu_train_batch_size) * spec.num_train_epochs)
    except (ArithmeticError, ValueError):  # batches of nothing, epochs without end: told by their own limits
        return None


def is_block_density(percent: float) -> bool:
    """Whether a published remaining-weights figure is a whole number of 32 × 32 blocks of BERT-base.

    The published runs pruned single weights or blocks and the sheets do not say which; a figure given
    to more than six decimals does.
    """
    blocks = (percent / 100 * _ENCODER - _UNPRUNED) / 1024
    return abs(percent - round(percent, 6)) > 1e-9 and abs(blocks - round(blocks)) < 1e-3


def _columns(path: Path, grid: Grid, heading: int) -> tuple[dict[str, int], list[str]]:
    groups, group = {}, ""
    for column in range(1, max(grid.rows[heading]) + 1):
        group = str(grid.rows.get(heading - 1, {}).get(column, group))
        groups[column] = group
    columns: dict[str, int] = {}
    # The published sheets keep codes of their own left of the models, and remarks behind the last column, Marker.
    marker = next((column for column, value in grid.rows[heading].items() if value == "Marker"), MAX_COLUMN)
    problems = unheaded(path, grid, heading, range(_CODES + 1, marker + 1))
    for column in grid.rows[heading]:
        value = grid.cell(heading, column)
        title = str(value).strip()
        if title in _IGNORED:
            continue
        if title == "acc" and groups[column] == "dev-MM":
            title = "acc dev-MM"
        name = {"EXP ID": "exp_id", "Model": "model", DENSITY: "reported_density", **_SCORES}.get(title, title)
        place = f"{path}, sheet '{grid.name}', cell {coordinate(heading, column)}"
        if unfit := unfit_heading(value):
            problems.append(f"{place}: {unfit}; type the column's name.")
        elif name not in FIELDS:
            problems.append(f"{place}: {cut(title)} is not a column{nearest(title, FIELDS) or '.'}")
        elif name in columns:
            problems.append(f"{place}: the column {title} stands there a second time.")
        else:
            columns[name] = column
    return columns, problems


def _setup(path: Path, grid: Grid) -> tuple[RunSpecification, list[str]]:
    """Model, seed and task from the first row, as in ``bert-base-uncased/92/squad`` and ``seed=92``."""
    first = grid.rows.get(1, {})
    spec = RunSpecification(sheet=grid.name)
    parts = str(first.get(3, "")).strip().rsplit("/", 2)
    if len(parts) != 3 or not re.fullmatch(r"[0-9]{1,10}", parts[1]) or parts[2] not in _EXAMPLES:
        found = f"is {cut(first[3])}" if 3 in first else "is empty"
        needed = "model/seed/task is needed, as in bert-base-uncased/92/squad"
        return spec, [f"{path}, sheet '{grid.name}', cell C1: {found}; {needed}."]
    spec = replace(spec, model_name_or_path=parts[0], seed=int(parts[1]), task=parts[2])
    seed = re.fullmatch(r"seed\s*=\s*([0-9]{1,10})", str(first.get(4, "")).strip())
    if seed is not None and int(seed[1]) != spec.seed:
        return spec, [f"{path}, sheet '{grid.name}', cell D1: is {cut(first[4])}, but C1 says seed {spec.seed}."]
    return spec, []


def _read_row(path: Path, grid: Grid, number: int, columns: dict[str, int], base: RunSpecification) -> Row:
    raw = {name: grid.cell(number, column) for name, column in columns.items()}
    cells = {name: coordinate(number, column) for name, column in columns.items()}
    named = raw["exp_id"]
    text_id = "" if isinstance(named, Unreadable) else str(named or "").strip()
    # Every row runs on the sheet's model and task; a row without EXP ID is called by its number.
    raw |= {"exp_id": named if isinstance(named, Unreadable) else text_id or f"row:{number}"}
    raw |= {"model": base.model, "task": base.task}
    raw["model_name_or_path"] = base.model_name_or_path
    row = Row(str(path), grid.name, number, base, cells, text_id=text_id, is_hidden=number in grid.hidden_rows)
    if all(raw.get(name) is None for name in _PRUNING):
        raw["pruning_method"] = "none"
    _resolve(row, raw)
    uncomputed = {name for name, column in columns.items() if (number, column) in grid.uncomputed}
    row = build_row(row, raw, uncomputed, text_ids=True)
    spec = replace(row.spec, schedule_total_steps=steps(row.spec))
    if spec.task not in WINDOWED:
        for name in set(_SCORES.values()):
            value = getattr(spec, name)
            if value is not None and value <= 1:
                spec = replace(spec, **{name: round(100 * value, 10)})
    return replace(row, spec=spec)


def _resolve(row: Row, raw: dict[str, Any]) -> None:
    """Put right what the published sheets are known to say in the wrong place."""
    if raw.get("pruning_method") == "threshold" and row.text_id.startswith("topK_global"):
        raw["pruning_method"] = "topK_global"
        row.notices.append(
            sentence(row, "pruning_method", "is 'threshold', read as 'topK_global', which its EXP ID names")
        )
    teacher = ("teacher_name_or_path", "alpha_ce", "alpha_distil")
    splopa = [raw.get(name) for name in _SPLOPA]
    if isinstance(splopa[0], str) and splopa == [raw.get(name) for name in teacher]:
        raw |= dict.fromkeys(_SPLOPA)
        row.notices.append(sentence(row, _SPLOPA[0], "repeats the teacher's cells, read as empty, as are the next two"))
    labelled = "splopa" in row.spec.model.lower()
    if any(raw.get(name) is not None for name in _SPLOPA):
        raw["adapter"] = "splopa"
    elif labelled:
        raw["adapter"] = "splopa"
        raw |= {name: FIELDS[name].default for name in _SPLOPA} | {"splopa_init_range": _PUBLISHED_RANGE}
        row.notices.append(
            sentence(row, "model", f"is {row.spec.model!r}: the adapter splopa with its default settings")
        )


def _densities(rows: list[Row], in_percent: set[int]) -> None:
    """Bring densities to percent and choose the block shape that they speak of, row by row in place.

    A figure up to 1 is a fraction, unless that would make a row denser than one with the same EXP ID,
    the same adapter and a smaller penalty, whose figure is in percent: a larger penalty keeps less. Rows
    `in_percent` show a percent sign in Excel, which leaves nothing to guess.
    """
    percents = [row.spec for row in rows if (row.spec.reported_density or 0) > 1]
    for index, row in enumerate(rows):
        spec, density = row.spec, row.spec.reported_density
        fraction = density is not None and 0 < density <= 1 and row.number not in in_percent
        if density is not None and fraction:
            lighter = [
                other.reported_density or 0
                for other in percents
                if (other.exp_id, other.adapter) == (spec.exp_id, spec.adapter)
                and other.final_lambda < spec.final_lambda
            ]
            if lighter and 100 * density > min(lighter):
                reading, fraction = f"is {density}, read as {density:.2g} %: the penalty leaves no more", False
            else:
                density = round(100 * density, 10)
                reading = f"is the fraction {spec.reported_density}, read as {density:.4g} %"
            row.notices.append(sentence(row, "reported_density", reading))
        measured = any(getattr(spec, name) is not None for name in set(_SCORES.values()))
        blocks = spec.adapter == "splopa" or not measured or fraction or is_block_density(density or 0)
        side = 32 if blocks else 1
        if spec.pruning_method != "none" and side == 1:
            row.notices.append(
                sentence(row, "reported_density", "is of single weights, not of 32 × 32 blocks: blocks are 1 × 1")
            )
        spec = replace(spec, reported_density=density)
        if spec.pruning_method != "none":
            spec = replace(spec, attention_block_rows=side, attention_block_cols=side)
            spec = replace(spec, ffn_block_rows=side, ffn_block_cols=side)
        rows[index] = replace(row, spec=spec)


def _identify(row: Row, rows: list[Row]) -> Row:
    """Name a row by its text and density where that is unique, else by its number."""
    names = [_name(other) for other in rows]
    name = _name(row)
    return replace(row, spec=replace(row.spec, exp_id=name if names.count(name) == 1 else f"row:{row.number}"))


def _name(row: Row) -> str:
    density = row.spec.reported_density
    if not row.text_id or density is None:
        return row.text_id or f"row:{row.number}"
    return f"{row.text_id}_{density:.1f}%"
