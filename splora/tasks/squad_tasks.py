"""Questions about texts: the two versions of SQuAD. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from splora.errors import InputError
from splora.tasks.folders import content_of, find_files, listed
from splora.tasks.task import Split, Task

#: What a question-answering head gives for each token: that an answer starts there, and that it ends there.
SPANS = ("start", "end")
_SUFFIXES = (".json", ".jsonl", ".ndjson")


@dataclass(frozen=True)
class QuestionTask(Task):
    """Questions whose answers are spans of a text.

    Attributes:
        version: of SQuAD, as its files are named.
        unanswerable: whether questions may have no answer.
    """

    version: str
    unanswerable: bool = False

    title: ClassVar[str] = "questions"
    head: ClassVar[str] = "QuestionAnswering"
    pipeline: ClassVar[str] = "question-answering"
    module: ClassVar[str] = "splora.tasks.squad.SquadDataModule"
    length: ClassVar[int | None] = 384
    classes: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("doc_stride", "labelled")
    input: ClassVar[str] = "questions.json"

    @property
    def names(self) -> tuple[str, ...]:
        """See `Task`."""
        return SPANS

    def source(self, folder: Path, split: Split) -> str:
        """See `Task`: one file of JSON or JSON lines."""
        found = find_files(folder, self._stems(split), _SUFFIXES)
        if len(found) > 1:
            names = listed(path.name for path in found)
            raise InputError(
                f"{folder}: the questions of {self.name} are in several files ({names}); join them into one."
            )
        if not found:
            name, purpose = ("train", "to train") if split == "train" else ("dev", "to evaluate")
            raise InputError(
                f"{folder}: this folder has no {name}.json, {name}-v{self.version}.json or {name}.jsonl; one is needed "
                f"{purpose} {self.name}, and {content_of(folder)}."
            )
        return str(found[0])

    def missing(self, folder: Path) -> str:
        """See `Task`."""
        found = find_files(folder, self._stems("train"), _SUFFIXES)
        return str(found[0] if found else folder / "train.json")

    def count(self, source: str, split: Split, labelled: bool) -> int:
        """See `Task`."""
        from splora.tasks.squad_json import count_questions

        return count_questions(source, labelled)

    def _stems(self, split: Split) -> str:
        """Regular expression of a split's file names; those of the other version of SQuAD are not among them."""
        names = "train" if split == "train" else "dev|validation|val"
        return rf"({names})([-_]?v?{self.version.replace('.', '[.]?')})?"


_METRICS = ("f1", "exact_match")
_TASKS = (
    QuestionTask(
        "1.1",
        name="squad",
        aliases=("squad1", "squadv1", "squad11", "squadv11"),
        metrics=_METRICS,
        examples=87_599,
        hub=("rajpurkar/squad", None),
    ),
    QuestionTask(
        "2.0",
        unanswerable=True,
        name="squad_v2",
        aliases=("squad2", "squad20", "squadv20"),
        metrics=_METRICS,
        examples=130_319,
        hub=("rajpurkar/squad_v2", None),
    ),
)
TASKS: dict[str, QuestionTask] = {task.name: task for task in _TASKS}
