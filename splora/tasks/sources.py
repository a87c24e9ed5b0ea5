"""From a task's name and a data folder to the files of its splits, and to its data module."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from splora.errors import InputError, nearest
from splora.files import expanded
from splora.tasks.folders import content_of, find_files, listed
from splora.tasks.glue_tables import find_source
from splora.tasks.glue_tasks import TASKS as GLUE_TASKS
from splora.tasks.source_names import EMBEDDED
from splora.tasks.text_sources import TEXT_TASKS, text_source

if TYPE_CHECKING:
    from splora.tasks.data_module import TaskDataModule

logger = logging.getLogger(__name__)

QA_TASKS = ("squad", "squad_v2")
#: Every task that models are fine-tuned for, by the name that the program uses.
TASKS = (*QA_TASKS, *GLUE_TASKS)
#: These, and the texts that language models are judged on.
ALL_TASKS = (*TASKS, *TEXT_TASKS)

_QUESTION_SUFFIXES = (".json", ".jsonl", ".ndjson")
#: Version in the name of SQuAD's files, and other spellings of the tasks.
_VERSIONS = {"squad": "1.1", "squad_v2": "2.0"}
_SPELLINGS = {"squad1": "squad", "squadv1": "squad", "squad11": "squad", "squadv11": "squad"} | {
    "squad2": "squad_v2",
    "squad20": "squad_v2",
    "squadv20": "squad_v2",
    "wikitext": "wikitext2",
    "wikitext2raw": "wikitext2",
    "wikitext2rawv1": "wikitext2",
    "penntreebank": "ptb",
}


def canonical_task(name: str) -> str:
    """The program's name of a task in any published spelling (`SST-2`, `sts-b`, `squad2`, `SQuAD 1.1`).

    Raises:
        InputError: there is no such task.
    """
    spellings = {_plain(task): task for task in ALL_TASKS} | _SPELLINGS
    try:
        return spellings[_plain(name)]
    except KeyError:
        raise InputError(
            f"task is {name!r}; allowed are {', '.join(ALL_TASKS)}{nearest(name, ALL_TASKS) or '.'}"
        ) from None


def auto_model(task: str) -> str:
    """The auto class of transformers that loads a task's models."""
    if task in TEXT_TASKS:
        return "AutoModelForCausalLM"
    return "AutoModelForQuestionAnswering" if task in QA_TASKS else "AutoModelForSequenceClassification"


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
    task = canonical_task(task)
    if data_dir is None or data_dir == EMBEDDED:
        return data_dir, data_dir
    folder = expanded(data_dir)
    if task in TEXT_TASKS and folder.is_file():
        if need_train:
            logger.warning(
                "%s: this one file is both what calibration draws from and what is evaluated; to keep them apart, give "
                "a folder with a training and a test text.",
                data_dir,
            )
        return str(folder), str(folder)
    if not folder.is_dir():
        finding = "is a file" if folder.exists() else "there is no such folder"
        raise InputError(f"{data_dir}: {finding}; a folder with the data of {task} is needed.")
    problems: list[str] = []
    sources: dict[str, str] = {}
    splits: tuple[Literal["train", "eval"], ...] = ("train", "eval") if need_train else ("eval",)
    for split in splits:
        try:
            sources[split] = _source(folder, task, split)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    if "train" not in sources and task in QA_TASKS:
        found = find_files(folder, _stems(task, "train"), _QUESTION_SUFFIXES)
        sources["train"] = str(found[0] if found else folder / "train.json")
    return sources.get("train", str(folder)), sources["eval"]


def make_data_module(
    task: str, model: str, train_file: str | None = None, predict_file: str | None = None, **options: Any
) -> TaskDataModule:
    """The data module of a task.

    Args:
        task: its name in any spelling.
        model: whose tokenizer is used: hub name, folder, or `embedded`.
        train_file: as the data module takes it, e.g. from `data_sources`.
        predict_file: the same for evaluation.
        options: further arguments of the task's data module; `columns` is for GLUE's tasks only.

    Raises:
        InputError: there is no such task, or an option does not fit it.
    """
    task = canonical_task(task)
    if task in GLUE_TASKS:
        from splora.tasks.glue import GlueDataModule

        return GlueDataModule(model, train_file, predict_file, task=task, **options)
    if options.pop("columns", None):
        raise InputError(f"columns are given, but {task} has none; they are for {', '.join(GLUE_TASKS)}.")
    if task in TEXT_TASKS:
        from splora.tasks.language_modelling import TextDataModule

        return TextDataModule(model, train_file, predict_file, task=task, **options)
    from splora.tasks.squad import SquadDataModule

    return SquadDataModule(
        model, train_file, predict_file, task="squad_v2" if task == "squad_v2" else "squad", **options
    )


def _source(folder: Path, task: str, split: Literal["train", "eval"]) -> str:
    if task in QA_TASKS:
        return _questions(folder, task, split)
    if task in TEXT_TASKS:
        return text_source(folder, task, split)
    find_source(str(folder), task, split)
    return str(folder)


def _questions(folder: Path, task: str, split: Literal["train", "eval"]) -> str:
    found = find_files(folder, _stems(task, split), _QUESTION_SUFFIXES)
    if len(found) > 1:
        names = listed(path.name for path in found)
        raise InputError(f"{folder}: the questions of {task} are in several files ({names}); join them into one.")
    if not found:
        name, purpose = ("train", "to train") if split == "train" else ("dev", "to evaluate")
        raise InputError(
            f"{folder}: this folder has no {name}.json, {name}-v{_VERSIONS[task]}.json or {name}.jsonl; one is needed "
            f"{purpose} {task}, and {content_of(folder)}."
        )
    return str(found[0])


def _stems(task: str, split: Literal["train", "eval"]) -> str:
    """Regular expression of a split's file names; those of the other version of SQuAD are not among them."""
    names = "train" if split == "train" else "dev|validation|val"
    return rf"({names})([-_]?v?{_VERSIONS[task].replace('.', '[.]?')})?"


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character not in "-_. ")
