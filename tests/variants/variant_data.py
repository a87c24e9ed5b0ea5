"""Variants of the files of data, and the variants of all three that mean the plain one."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from splora.tasks.glue_tables import Table
from splora.tasks.glue_tasks import TASKS


def _write_tsv(path: Path, header: list[str], rows: list[list[Any]], labels: tuple[str, ...]) -> None:
    lines = ["\t".join(map(str, row)) for row in [header, *rows]]
    path.with_suffix(".tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_csv(path: Path, header: list[str], rows: list[list[Any]], labels: tuple[str, ...]) -> None:
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def _write_lines(path: Path, header: list[str], rows: list[list[Any]], labels: tuple[str, ...]) -> None:
    lines = [json.dumps(dict(zip(header, row, strict=True))) for row in rows]
    path.with_suffix(".jsonl").write_text("\n".join(lines), encoding="utf-8")


def _named(how: Callable[[str], str], write: Callable[..., None]) -> Callable[..., None]:
    def change(path: Path, header: list[str], rows: list[list[Any]], labels: tuple[str, ...]) -> None:
        write(path, header, [[*row[:-1], how(labels[row[-1]])] for row in rows], labels)

    return change


def _write_parquet(path: Path, header: list[str], rows: list[list[Any]], labels: tuple[str, ...]) -> None:
    """As `datasets` does, with classes in an order of their own."""
    import datasets

    own = [*labels[1:], labels[0]]
    features = datasets.Features(
        {name: datasets.Value("string") for name in header[:-1]} | {header[-1]: datasets.ClassLabel(names=own)}
    )
    columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
    columns[header[-1]] = [own.index(labels[number]) for number in columns[header[-1]]]
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path.with_suffix(".parquet"))


DATA: dict[str, Callable[..., None]] = {
    "tsv": _write_tsv,
    "csv": _write_csv,
    "lines": _write_lines,
    "names": _named(str, _write_csv),
    "upper names": _named(str.upper, _write_lines),
    "numbered names": _named(lambda name: f"kind {name}", _write_tsv),
    "classes": _write_parquet,
}


#: Variants that mean the plain one in other words: refusing them is as wrong as another score.
HARMLESS = {
    *("plain", "module.", "model.", "_orig_mod.", "nested", "old norms", "dropout", "no pruned heads", "half"),
    *(f"outputs swapped, {name}" for name in ("id2label", "upper", "numbered", "label2id", "both")),
    *("no length", "endless", "with segments", "left", "cuts", "fills"),
    *("tsv", "csv", "lines", "names", "upper names", "classes"),
}


def write_table(folder: Path, split: str, task: str, table: Table, how: str) -> None:
    """Write the examples of a split as a file of one of the kinds of `DATA`; labels are GLUE's numbers."""
    description = TASKS[task]
    folder.mkdir(parents=True, exist_ok=True)
    rows = [[*texts, int(label)] for *texts, label in zip(*table.texts, table.labels, strict=True)]
    stem = description.files("train" if split == "train" else "eval")[""].removesuffix(".tsv")
    DATA[how](folder / stem, [*description.sentences, description.label], rows, description.labels)


def write_questions(folder: Path, split: str, content: dict[str, Any], how: str) -> None:
    """SQuAD's JSON, or a line per question as on the hub."""
    folder.mkdir(parents=True, exist_ok=True)
    if how in ("tsv", "csv", "names"):
        (folder / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
        return
    rows = [
        {"id": asked["id"], "title": article["title"], "context": paragraph["context"], "question": asked["question"]}
        | {"answers": {key: [answer[key] for answer in asked["answers"]] for key in ("text", "answer_start")}}
        for article in content["data"]
        for paragraph in article["paragraphs"]
        for asked in paragraph["qas"]
    ]
    (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
