"""Settings from the command line laid over a row: ``--set KEY=VALUE`` and its shorthands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from splora.hparams.cells import Unfit, from_text
from splora.hparams.rows import COLUMNS, Row, sentence

from splora.errors import InputError, nearest
from splora.training.preflight import preflight
from splora.training.specification import check

_IDENTITY = ("exp_id", "sheet")


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
    values = dict(overrides.values)
    if overrides.options.get("model_name_or_path") == "--model" and row.spec.model_name_or_path.startswith("run:"):
        # The row builds on another one: the pretrained model is that row's to start from.
        del values["model_name_or_path"]
    if values.get("task", row.spec.task) != row.spec.task:
        # Published scores of another task are nothing to compare with.
        values = {**dict.fromkeys(name for name in COLUMNS if name.startswith("reported_")), **values}
    spec = replace(row.spec, **values)
    problems = list(row.problems)
    known = {(found.field, found.message) for found in check(row.spec)}
    found_now = [(found.field, found.message) for found in preflight(spec)]
    problems += [_sentence(row, overrides, *found) for found in found_now if found not in known]
    return replace(row, spec=spec, problems=problems)


def _sentence(row: Row, overrides: Overrides, name: str, message: str) -> str:
    if name not in overrides.options:
        return sentence(row, name, message)
    return f"{overrides.options[name]}: {message}{'' if message.endswith('?') else '.'}"
