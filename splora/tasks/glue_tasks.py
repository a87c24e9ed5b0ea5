"""What GLUE's tasks are: columns, labels, files and scores. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class GlueTask:
    """One task.

    Attributes:
        sentences: columns of the text, one or two.
        label: column of the label.
        labels: names in GLUE's order; empty where the label is a score to be predicted.
        metrics: what is reported, the one to judge by first.
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
    metrics: tuple[str, ...] = ("accuracy",)
    positive: int = 1
    coded: bool = False
    eval_files: dict[str, str] = field(default_factory=lambda: {"": "dev.tsv"})
    no_header: dict[str, int] = field(default_factory=dict)
    hub_sentences: tuple[str, ...] = ()
    cut_rows: bool = False

    def files(self, split: Literal["train", "eval"]) -> dict[str, str]:
        """File names of a split in GLUE's folder, by what is appended to the names of their metrics."""
        return {"": "train.tsv"} if split == "train" else self.eval_files

    def stems(self, split: Literal["train", "eval"]) -> dict[str, str]:
        """Regular expressions of the names that a split's files may have, without suffix; keyed as `files`."""
        if split == "train":
            return {"": "train"}
        if len(self.eval_files) == 1:
            return {"": "dev|validation|val"}
        return {"": "(dev|validation|val)([._-]matched)?", "_mismatched": "(dev|validation|val)[._-]mismatched"}


TASKS: dict[str, GlueTask] = {
    "mnli": GlueTask(
        ("sentence1", "sentence2"),
        "gold_label",
        ("entailment", "neutral", "contradiction"),
        eval_files={"": "dev_matched.tsv", "_mismatched": "dev_mismatched.tsv"},
        hub_sentences=("premise", "hypothesis"),
    ),
    "qqp": GlueTask(
        ("question1", "question2"),
        "is_duplicate",
        ("not_duplicate", "duplicate"),
        metrics=("accuracy", "f1"),
        coded=True,
        cut_rows=True,
    ),
    "sst2": GlueTask(("sentence",), "label", ("negative", "positive"), coded=True),
    "qnli": GlueTask(("question", "sentence"), "label", ("entailment", "not_entailment")),
    "mrpc": GlueTask(
        ("#1 String", "#2 String"),
        "Quality",
        ("not_equivalent", "equivalent"),
        metrics=("accuracy", "f1"),
        coded=True,
        hub_sentences=("sentence1", "sentence2"),
    ),
    "rte": GlueTask(("sentence1", "sentence2"), "label", ("entailment", "not_entailment")),
    "cola": GlueTask(
        ("sentence",),
        "label",
        ("unacceptable", "acceptable"),
        metrics=("matthews",),
        coded=True,
        no_header={"label": 1, "sentence": 3},
    ),
    "stsb": GlueTask(("sentence1", "sentence2"), "score", (), metrics=("pearson", "spearman")),
}
