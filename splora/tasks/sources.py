"""From a task's name and a data folder to the files of its splits, and to its data module."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from splora.errors import InputError
from splora.files import expanded
from splora.tasks.registry import REGISTRY, TRAINED, canonical_task, find_task
from splora.tasks.source_names import EMBEDDED
from splora.tasks.squad_tasks import TASKS as QA_TASKS
from splora.tasks.task import Split, refuse_columns

if TYPE_CHECKING:
    from splora.tasks.data_module import TaskDataModule

__all__ = ["ALL_TASKS", "QA_TASKS", "TASKS", "auto_model", "canonical_task", "data_sources", "make_data_module"]

logger = logging.getLogger(__name__)

#: Every task that models are fine-tuned for, by the name that the program uses.
TASKS = TRAINED
#: These, and those of language models.
ALL_TASKS = tuple(REGISTRY)


def auto_model(task: str) -> str:
    """The auto class of transformers that loads a task's models."""
    return f"AutoModelFor{REGISTRY[task].head}"


def data_sources(data_dir: str | None, task: str, need_train: bool = True) -> tuple[str | None, str | None]:
    """Training and evaluation data of a task in a folder, as a data module takes them.

    Args:
        data_dir: a folder of GLUE's tables (see `glue_tables.find_source`), of SQuAD's JSON (`train.json`,
            `dev-v1.1.json`, `validation.jsonl` and the like) or of texts (see `text_sources.find_text`), where one file
            may be both splits, which a warning tells; None: the hub; `embedded`.
        task: its name in any spelling.
        need_train: whether missing training data are an error. If not, the first source is one that says so when
            it is read.

    Returns:
        (train_file, predict_file); both None for the hub.

    Raises:
        InputError: there is no such folder, a split is missing in it, or more than one file could be meant.
    """
    found = find_task(task)
    if data_dir is None or data_dir == EMBEDDED:
        return data_dir, data_dir
    folder = expanded(data_dir)
    if folder.is_file() and (found.causal or not need_train):
        if need_train:
            logger.warning(
                "%s: this one file is both what calibration draws from and what is evaluated; to keep them apart, give "
                "a folder with a training and a test text.",
                data_dir,
            )
        return str(folder), str(folder)
    if not folder.is_dir():
        finding = "is a file" if folder.exists() else "there is no such folder"
        raise InputError(f"{data_dir}: {finding}; a folder with the data of {found.name} is needed.")
    problems: list[str] = []
    sources: dict[str, str] = {}
    splits: tuple[Split, ...] = ("train", "eval") if need_train else ("eval",)
    for split in splits:
        try:
            sources[split] = found.source(folder, split)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return sources["train"] if need_train else found.missing(folder), sources["eval"]


def make_data_module(
    task: str, model: str, train_file: str | None = None, predict_file: str | None = None, **options: Any
) -> TaskDataModule:
    """The data module of a task.

    Args:
        task: its name in any spelling.
        model: whose tokenizer is used: hub name, folder, or `embedded`.
        train_file: as the data module takes it, e.g. from `data_sources`.
        predict_file: the same for evaluation.
        options: further arguments of the task's data module. `doc_stride` and `labelled` are left out where the task
            has no such thing; `columns` are not.

    Raises:
        InputError: there is no such task, or an option does not fit it.
    """
    found = find_task(task)
    if "columns" not in found.takes and options.pop("columns", None):
        refuse_columns(found, REGISTRY.values())
    for name in ("doc_stride", "labelled"):
        if name not in found.takes:
            options.pop(name, None)
    kind: Any = found.module_class()
    module: TaskDataModule = kind(model, train_file, predict_file, task=found.name, **options)
    return module
