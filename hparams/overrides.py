"""Settings from the command line laid over a row: ``--set KEY=VALUE`` and its shorthands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from splora.errors import InputError, cut, nearest
from splora.hparams.cells import Unfit, from_text
from splora.hparams.lineage import reference
from splora.hparams.rows import COLUMNS, Row, sentence
from splora.training.preflight import preflight
from splora.training.specification import RunSpecification, check

_IDENTITY = ("exp_id", "sheet")


@dataclass(frozen=True)
class Overrides:
    """Typed values by field, and the option that gave each."""

    values: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    #: A fine-tuned model in place of the row that a chosen row starts from.
    start: str | None = None


def parse(
    settings: Iterable[str], shorthands: Mapping[str, tuple[str, str | None]], start: str | None = None
) -> Overrides:
    """Read ``KEY=VALUE`` texts and shorthand options.

    Args:
        shorthands: by field, the option's name and its text, or None where it was not given.
        start: what ``--start`` names.

    Raises:
        InputError: unknown fields, values of the wrong type, a field given twice; all of them at once.
    """
    given = [(name, option, text) for name, (option, text) in shorthands.items() if text is not None]
    problems = []
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            problems.append(f"--set {cut(setting)[1:-1]}: is not KEY=VALUE, as in num_train_epochs=2.")
            continue
        given.append((name.strip(), f"--set {name.strip()}", text))
    values: dict[str, Any] = {}
    options: dict[str, str] = {}
    for name, option, text in given:
        if name in _IDENTITY or name not in COLUMNS:
            why = "names the row and cannot be set" if name in _IDENTITY else "is not a column of the workbook"
            hint = "" if name in _IDENTITY else nearest(name, [c for c in COLUMNS if c not in _IDENTITY])
            problems.append(f"{option[:80]}: {cut(name)} {why}{hint or '.'}")
        elif name in options:
            problems.append(f"{option}: {name} is given a second time, first by {options[name]}.")
        else:
            options[name] = option
            try:
                values[name] = from_text(name, text)
            except Unfit as unfit:
                problems.append(f"{option}: {unfit}.")
    if start is not None and "model_name_or_path" in options:
        problems.append(
            f"--start: names what the rows start from, as does {options['model_name_or_path']}; give one of them."
        )
    if start is not None and not start.strip():
        problems.append("--start: is empty; name a fine-tuned model.")
    if problems:
        raise InputError(problems)
    return Overrides(values, options, start)


def apply(row: Row, overrides: Overrides) -> Row:
    """`row` with the overrides in its specification, checked again, and with the files it names looked for.

    What is wrong is added to the problems of the row returned; a finding on an overridden field names the option.
    """
    started = _started(row.spec, overrides)
    values = {**overrides.values, **started}
    if overrides.options.get("model_name_or_path") == "--model" and reference(row.spec.model_name_or_path) is not None:
        # The row builds on another one: the pretrained model is that row's to start from.
        del values["model_name_or_path"]
    options = {name: "--start" if name in started else overrides.options[name] for name in values}
    if values.get("task", row.spec.task) != row.spec.task:
        # Published scores of another task are nothing to compare with.
        values = {**dict.fromkeys(name for name in COLUMNS if name.startswith("reported_")), **values}
    spec = replace(row.spec, **values)
    # A cell that an option replaces may say what it likes.
    problems = [text for text in row.problems if not any(text.startswith(row.place(name)) for name in options)]
    changed = replace(row, spec=spec, options=options, problems=problems)
    known = {(found.field, found.message) for found in check(row.spec)}
    found_now = [(found.field, found.message) for found in preflight(spec)]
    problems += [sentence(changed, *found) for found in found_now if found not in known]
    return changed


def _started(spec: RunSpecification, overrides: Overrides) -> dict[str, str]:
    """What ``--start`` changes: the model, and the teacher where it is the row that the model came from."""
    if overrides.start is None:
        return {}
    taught = spec.teacher_name_or_path == spec.model_name_or_path and "teacher_name_or_path" not in overrides.options
    is_teacher = taught and reference(spec.teacher_name_or_path) is not None
    return {"model_name_or_path": overrides.start} | ({"teacher_name_or_path": overrides.start} if is_teacher else {})
