"""All tasks by name: the one table from which commands, rows, checks and cards know them. Imports no torch.

A further task of a known kind is an entry in the file of that kind, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

from splora.errors import InputError, nearest
from splora.tasks import choice_tasks, glue_tasks, squad_tasks, tag_tasks, text_sources
from splora.tasks.task import Task

#: Every task, in the order in which sentences list them.
REGISTRY: dict[str, Task] = {
    **squad_tasks.TASKS,
    **glue_tasks.TASKS,
    **tag_tasks.TASKS,
    **text_sources.TEXT_TASKS,
    **choice_tasks.TASKS,
}


def names(wanted: Callable[[Task], bool]) -> tuple[str, ...]:
    """The names of the tasks of which something holds."""
    return tuple(name for name, task in REGISTRY.items() if wanted(task))


#: Tasks that models are fine-tuned for; those of language models are judged as they are.
TRAINED = names(lambda task: task.trained)
#: Tasks whose long examples are cut into windows that overlap.
WINDOWED = names(lambda task: "doc_stride" in task.takes)


def same_head(first: str, second: str) -> bool:
    """Whether a model of one task is one of the other, too: they are one, or both ask for spans."""
    return first == second or {first, second} <= {*squad_tasks.TASKS}


def canonical_task(name: str) -> str:
    """The program's name of a task in any published spelling (`SST-2`, `sts-b`, `squad2`, `SQuAD 1.1`).

    Raises:
        InputError: there is no such task.
    """
    spellings = {alias: task.name for task in REGISTRY.values() for alias in (*task.aliases, _plain(task.name))}
    try:
        return spellings[_plain(name)]
    except KeyError:
        raise InputError(
            f"task is {name!r}; allowed are {', '.join(REGISTRY)}{nearest(name, REGISTRY) or '.'}"
        ) from None


def find_task(name: str) -> Task:
    """A task by its name in any published spelling.

    Raises:
        InputError: there is no such task.
    """
    return REGISTRY[canonical_task(name)]


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character not in "-_. ")
