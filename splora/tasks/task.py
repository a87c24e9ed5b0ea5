"""What a task is: one object that says its data, head, labels, metrics and where it may be used. Imports no torch.

A kind of task is a subclass in the file with its data's description; a task of a known kind is one entry there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from splora.errors import InputError, nearest

if TYPE_CHECKING:
    from splora.tasks.data_module import TaskDataModule

Split = Literal["train", "eval"]


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """One task.

    Attributes:
        name: what the program calls it.
        aliases: other spellings, without signs and in small letters.
        metrics: what is reported, the one to judge by first.
        examples: training examples of the published data, where rows are checked by them.
        hub: its data set on the hub and the configuration of it; None: it has none there.

    What all tasks of a kind share is said by class:

    Attributes:
        title: what an example is, for sentences: `sentences`, `questions`.
        head: how names of the models' classes end, after `For`.
        pipeline: what the hub calls the use of such a model.
        module: where its data module stands.
        length: tokens of an example where nobody says otherwise; None: as many as the model has positions.
        causal: whether decoders do it; else encoders.
        trained: whether rows train for it, healing does, and predictions can be asked for.
        outputs: what its score is computed from: the head's `logits`, or the `losses` of windows or of `endings`.
        classes: whether the head's outputs are labels, or one score; else places in a text, or words.
        takes: which of the arguments `doc_stride`, `columns` and `labelled` its data module has.
        input: a file to predict, as an example of a command shows it.
    """

    name: str
    aliases: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("accuracy",)
    examples: int | None = None
    hub: tuple[str, str | None] | None = None

    title: ClassVar[str]
    head: ClassVar[str]
    pipeline: ClassVar[str]
    module: ClassVar[str]
    length: ClassVar[int | None] = 128
    causal: ClassVar[bool] = False
    trained: ClassVar[bool] = True
    classes: ClassVar[bool] = True
    outputs: ClassVar[Literal["logits", "losses", "endings"]] = "logits"
    takes: ClassVar[tuple[str, ...]] = ("labelled",)
    input: ClassVar[str] = "rows.jsonl"

    @property
    def names(self) -> tuple[str, ...] | None:
        """What the head puts out, in its usual order; empty: one score; None: what the data or the model say."""
        return None

    @abstractmethod
    def source(self, folder: Path, split: Split) -> str:
        """The data of a split in a folder, as the data module takes them.

        Raises:
            InputError: there are none, or several that could be meant.
        """

    def missing(self, folder: Path) -> str:
        """What stands for training data that nobody needs: it says so when it is read."""
        return str(folder)

    def count(self, source: str, split: Split, labelled: bool) -> int:
        """Examples of a file or folder, read and checked as for the data module.

        Raises:
            InputError: they cannot be read.
        """
        raise InputError(f"{self.name} is for language models, which rows do not train.")

    def label_order(self, name: str, config: Any) -> tuple[int, ...] | None:
        """The task's number of each output of a model; None: its configuration names other things, or no labels.

        Raises:
            InputError: the configuration contradicts itself.
        """
        return None

    def meaning(self, label: str) -> object:
        """What a label is, however it is spelled: equal for names of the same one."""
        return label

    def check_names(self, name: str, config: Any) -> None:
        """Refuse a fine-tuned model whose outputs are named as something else than the task's labels.

        Raises:
            InputError: they are.
        """
        return

    def module_class(self) -> type[TaskDataModule]:
        """Its data module, which brings torch along."""
        place, _, name = self.module.rpartition(".")
        found: type[TaskDataModule] = getattr(import_module(place), name)
        return found

    def usual_length(self, positions: int | None) -> int | None:
        """`length`, where a model has so many positions."""
        return None if self.length is None else min(self.length, positions or self.length)


def refuse_columns(task: Task, others: Iterable[Task]) -> None:
    """Say that a task has no columns to be named.

    Raises:
        InputError: always.
    """
    names = ", ".join(other.name for other in others if "columns" in other.takes)
    raise InputError(f"columns are given, but {task.name} has none; they are for {names}.")


def known_task(task: str, tasks: Iterable[str]) -> str:
    """The task, if it is one of a data module's.

    Raises:
        InputError: it is none.
    """
    allowed = list(tasks)
    if task not in allowed:
        raise InputError(f"task is {task!r}; allowed are {', '.join(allowed)}{nearest(task, allowed) or '.'}")
    return task
