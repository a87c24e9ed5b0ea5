"""Settings from the command line laid over a row: ``--set KEY=VALUE`` and its shorthands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hparams.cells import Unfit, from_text
from hparams.rows import COLUMNS, Row, sentence
from splora.errors import InputError, nearest
from splora.training.specification import check

_IDENTITY = ("exp_id", "sheet")
_DATA = ("train_file", "predict_file")
_MODELS = ("model_name_or_path", "teacher_name_or_path")


@dataclass(frozen=True)
class Overrides:
    """Typed values by field, and the option that gave each."""

    values: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)


def parse(settings: Iterable[str], shorthands: Mapping[str, tuple[str, str | None]]) -> Overrides:
    """Read ``KEY=VALUE`` texts and shorthand options.

    Args:
        shorthands: by field, the option's name and its text, or None where it was not given.

    Raises:
        InputError: unknown fields, values of the wrong type, a field given twice; all of them at once.
    """
    given = [(name, option, text) for name, (option, text) in shorthands.items() if text is not None]
    problems = []
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            problems.append(f"--set {setting}: is not KEY=VALUE, as in num_train_epochs=2.")
            continue
        given.append((name.strip(), f"--set {name.strip()}", text))
    values: dict[str, Any] = {}
    options: dict[str, str] = {}
    for name, option, text in given:
        if name in _IDENTITY or name not in COLUMNS:
            why = "names the row and cannot be set" if name in _IDENTITY else "is not a column of the workbook"
            hint = "" if name in _IDENTITY else nearest(name, [c for c in COLUMNS if c not in _IDENTITY])
            problems.append(f"{option}: {name!r} {why}{hint or '.'}")
        elif name in options:
            problems.append(f"{option}: {name} is given a second time, first by {options[name]}.")
        else:
            options[name] = option
            try:
                values[name] = from_text(name, text)
            except Unfit as unfit:
                problems.append(f"{option}: {unfit}.")
    if problems:
        raise InputError(problems)
    return Overrides(values, options)


def apply(row: Row, overrides: Overrides) -> Row:
    """`row` with the overrides in its specification, checked again, and with the files it names looked for.

    What is wrong is added to the problems of the row returned; a finding on an overridden field names the option.
    """
    spec = replace(row.spec, **overrides.values)
    problems = list(row.problems)
    if overrides.values:
        known = {(found.field, found.message) for found in check(row.spec)}
        found_now = [(found.field, found.message) for found in check(spec)]
        problems += [_sentence(row, overrides, *found) for found in found_now if found not in known]
    new = replace(row, spec=spec, problems=problems)
    for name, message in _missing_files(new):
        problems.append(_sentence(new, overrides, name, message))
    return new


def _sentence(row: Row, overrides: Overrides, name: str, message: str) -> str:
    if name not in overrides.options:
        return sentence(row, name, message)
    return f"{overrides.options[name]}: {message}{'' if message.endswith('?') else '.'}"


def _missing_files(row: Row) -> list[tuple[str, str]]:
    missing = []
    for name in (*_DATA, *_MODELS):
        value = getattr(row.spec, name)
        if value is None or value == "embedded" or value.startswith("run:"):
            continue
        if not Path(value).expanduser().exists() and (name in _DATA or _looks_like_a_path(value)):
            missing.append((name, f"is {value!r}; there is no such file or folder"))
    return missing


def _looks_like_a_path(value: str) -> bool:
    """A hub name is ``model`` or ``owner/model``; everything else must be there."""
    return value.startswith((".", "/", "~")) or value.count("/") > 1 or "\\" in value
