"""Sentences and pairs of them with a label or a score: GLUE's tasks, an entry each. Imports nothing heavy.

An entry is all that a further task of this kind needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from splora.tasks.task import Split, Task

#: GLUE on the hub; its configurations are named as the tasks here.
HUB = "nyu-mll/glue"


@dataclass(frozen=True)
class GlueTask(Task):
    """Sentences or pairs of them, classified or scored.

    Attributes:
        sentences: columns of the text, one or two.
        label: column of the label.
        labels: names in GLUE's order; empty where the label is a score to be predicted.
        synonyms: other names of labels in use, without signs and in small letters.
        positive: the label that F1 is about.
        coded: whether files hold the label's number instead of its name.
        eval_files: evaluation files of a folder, by what is appended to the names of their metrics.
        no_header: where the columns stand in a file without a header.
        hub_sentences: names of the text columns on the hub, where they differ.
        cut_rows: the published table has rows torn apart by line breaks in the text.
    """

    sentences: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    positive: int = 1
    coded: bool = False
    eval_files: dict[str, str] = field(default_factory=lambda: {"": "dev.tsv"})
    no_header: dict[str, int] = field(default_factory=dict)
    hub_sentences: tuple[str, ...] = ()
    cut_rows: bool = False

    title: ClassVar[str] = "sentences"
    head: ClassVar[str] = "SequenceClassification"
    pipeline: ClassVar[str] = "text-classification"
    module: ClassVar[str] = "splora.tasks.glue.GlueDataModule"
    takes: ClassVar[tuple[str, ...]] = ("columns", "labelled")
    input: ClassVar[str] = "rows.tsv"

    def __post_init__(self) -> None:
        if self.hub is None:
            object.__setattr__(self, "hub", (HUB, self.name))

    @property
    def names(self) -> tuple[str, ...]:
        """See `Task`."""
        return self.labels

    def source(self, folder: Path, split: Split) -> str:
        """See `Task`."""
        from splora.tasks.glue_tables import find_source

        find_source(str(folder), self.name, split)
        return str(folder)

    def count(self, source: str, split: Split, labelled: bool) -> int:
        """See `Task`."""
        from splora.tasks.glue_tables import count_examples

        return count_examples(source, self.name, split, labelled=labelled)

    def label_order(self, name: str, config: Any) -> tuple[int, ...] | None:
        """See `Task` and `label_names.order_of`."""
        from splora.tasks.label_names import order_of

        return order_of(name, config, self) if self.labels else None

    def meaning(self, label: str) -> object:
        """See `Task`: GLUE's number of it."""
        from splora.tasks.label_names import number_of

        return number_of(label, self)

    def check_names(self, name: str, config: Any) -> None:
        """See `Task`."""
        from splora.tasks.label_names import check_names

        check_names(name, config, self)

    def files(self, split: Split) -> dict[str, str]:
        """File names of a split in GLUE's folder, by what is appended to the names of their metrics."""
        return {"": "train.tsv"} if split == "train" else self.eval_files

    def stems(self, split: Split) -> dict[str, str]:
        """Regular expressions of the names that a split's files may have, without suffix; keyed as `files`."""
        if split == "train":
            return {"": "train"}
        if len(self.eval_files) == 1:
            return {"": "dev|validation|val"}
        return {"": "(dev|validation|val)([._-]matched)?", "_mismatched": "(dev|validation|val)[._-]mismatched"}


_ENTAILMENT = {
    "entailment": ("entail", "entails", "entailed", "e"),
    "neutral": ("n",),
    "contradiction": ("contradict", "contradicts", "contradictory", "c"),
    "not_entailment": ("notentailed", "nonentailment", "noentailment"),
}
_TASKS = (
    GlueTask(
        ("sentence1", "sentence2"),
        "gold_label",
        ("entailment", "neutral", "contradiction"),
        _ENTAILMENT,
        name="mnli",
        examples=392_702,
        eval_files={"": "dev_matched.tsv", "_mismatched": "dev_mismatched.tsv"},
        hub_sentences=("premise", "hypothesis"),
    ),
    GlueTask(
        ("question1", "question2"),
        "is_duplicate",
        ("not_duplicate", "duplicate"),
        {"not_duplicate": ("notduplicated", "nonduplicate", "different"), "duplicate": ("duplicated", "duplicates")},
        name="qqp",
        examples=363_846,
        metrics=("accuracy", "f1"),
        coded=True,
        cut_rows=True,
    ),
    GlueTask(
        ("sentence",),
        "label",
        ("negative", "positive"),
        {"negative": ("neg",), "positive": ("pos",)},
        name="sst2",
        examples=67_349,
        coded=True,
    ),
    GlueTask(("question", "sentence"), "label", ("entailment", "not_entailment"), _ENTAILMENT, name="qnli"),
    GlueTask(
        ("#1 String", "#2 String"),
        "Quality",
        ("not_equivalent", "equivalent"),
        {"not_equivalent": ("nonequivalent", "notparaphrase", "notaparaphrase"), "equivalent": ("paraphrase",)},
        name="mrpc",
        metrics=("accuracy", "f1"),
        coded=True,
        hub_sentences=("sentence1", "sentence2"),
    ),
    GlueTask(("sentence1", "sentence2"), "label", ("entailment", "not_entailment"), _ENTAILMENT, name="rte"),
    GlueTask(
        ("sentence",),
        "label",
        ("unacceptable", "acceptable"),
        {"unacceptable": ("notacceptable", "ungrammatical"), "acceptable": ("grammatical",)},
        name="cola",
        metrics=("matthews",),
        coded=True,
        no_header={"label": 1, "sentence": 3},
    ),
    GlueTask(("sentence1", "sentence2"), "score", (), name="stsb", metrics=("pearson", "spearman")),
)
TASKS: dict[str, GlueTask] = {task.name: task for task in _TASKS}
