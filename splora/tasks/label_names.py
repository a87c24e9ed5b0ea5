"""What a label's name means: the one place that decides which of GLUE's labels a model or a data set is speaking of.

Names come from a model's configuration, from a table's cells, or from the list of names that a data set carries.
Numbers, and names that only number (`LABEL_1`), mean GLUE's order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from splora.errors import InputError
from splora.tasks.glue_tasks import GlueTask

_NUMBERED = re.compile(r"(?:label)?(\d+)(?:\.0+)?")


def number_of(name: object, task: GlueTask) -> int | None:
    """GLUE's number of the label that a name means, whatever its spelling; None: it is none of the task's."""
    plain = _plain(str(name))
    for number, label in enumerate(task.labels):
        if plain in (_plain(label), *task.synonyms.get(label, ())):
            return number
    numbered = _numbered(name)
    number = int(numbered[1]) if numbered is not None and len(numbered[1]) < 3 else len(task.labels)
    return number if number < len(task.labels) else None


def order_of(name: str, config: Any, task: GlueTask) -> tuple[int, ...] | None:
    """GLUE's number of each output of a model, by its configuration.

    `id2label` decides, as in transformers. A `label2id` beside it that has other names, or only numbers them, is left
    from another model and says nothing of these.

    Args:
        name: of the model, for messages.

    Returns:
        None: the names are not the task's, as in a model that was fine-tuned for something else.

    Raises:
        InputError: the configuration contradicts itself.
    """
    by_number = {int(number): str(label) for number, label in (getattr(config, "id2label", None) or {}).items()}
    found = {number: number_of(label, task) for number, label in by_number.items()}
    if None in found.values() or len(found) != len(task.labels):
        return None
    if sorted(found) != list(range(len(found))) or len({*found.values()}) != len(found):
        raise InputError(
            f"{name}: id2label in config.json is {by_number}; {task_names(task)} must each stand there once, numbered "
            f"from 0."
        )
    order = tuple(number for _, number in sorted(found.items()) if number is not None)
    _check_other_map(name, getattr(config, "label2id", None) or {}, by_number, order, task)
    return order


def check_names(name: str, config: Any, task: GlueTask) -> None:
    """Refuse a model whose outputs are named as something else than the task's labels.

    Raises:
        InputError: other names, or a contradiction (see `order_of`).
    """
    if task.labels and order_of(name, config, task) is None:
        shown = ", ".join(str(label) for label in list((config.id2label or {}).values())[:5])
        raise InputError(
            f"{name}: its outputs are named {shown} in config.json, and the task's labels are {task_names(task)}; "
            f"give each output its label's name in id2label, or pass a model that is fine-tuned on this task."
        )


def meanings(names: Sequence[str], where: str, task: GlueTask) -> tuple[int, ...]:
    """GLUE's number of each of a data set's numbered labels, by the names that it carries.

    Raises:
        InputError: a name is none of the task's, or two mean one label.
    """
    found = [number_of(label, task) for label in names]
    numbers = tuple(number for number in found if number is not None)
    if len(numbers) < len(names) or len({*numbers}) < len(names):
        raise InputError(
            f"{where}: its labels are named {', '.join(map(str, names[:5]))}; the task's are {task_names(task)}."
        )
    return numbers


def task_names(task: GlueTask) -> str:
    """The labels of a task, for a sentence."""
    return f"{', '.join(task.labels[:-1])} and {task.labels[-1]}"


def _check_other_map(
    name: str, label2id: Mapping[str, Any], by_number: Mapping[int, str], order: Sequence[int], task: GlueTask
) -> None:
    """Refuse a `label2id` of the task's own names that gives them other numbers."""
    other = {int(number): number_of(label, task) for label, number in label2id.items() if not _only_numbers(label)}
    if {*other.values()} == {*order} and any(
        order[number] != label for number, label in other.items() if number < len(order)
    ):
        raise InputError(
            f"{name}: id2label and label2id in config.json contradict each other ({dict(by_number)} and "
            f"{dict(label2id)}); correct the wrong one."
        )


def _only_numbers(label: object) -> bool:
    return _numbered(label) is not None


def _numbered(label: object) -> re.Match[str] | None:
    return _NUMBERED.fullmatch(re.sub(r"[\s_]+", "", str(label).lower()))


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())
