"""Multiple choice for language models: ARC, HellaSwag, PIQA and WinoGrande, and files of their layouts. No torch.

A question becomes a context and its endings as the usual harness (lm-evaluation-harness, Gao et al.) makes them, so
that scores can be compared: the wording of the contexts, and the space before an ending, are its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from splora.errors import InputError, cut, named
from splora.files import expanded
from splora.reading import check_text, kind
from splora.tasks.folders import content_of, find_files
from splora.tasks.table_files import RawTable, raw_of_columns, read_raw
from splora.tasks.task import Split, Task

#: Endings of files that hold a question a line, or a row.
_TABLES = (".jsonl", ".ndjson", ".json", ".parquet", ".jsonl.gz", ".json.gz")
_PREFIX = r"(?:.*[-_.])?"
_TRAIN, _VALID, _TEST = rf"{_PREFIX}train", rf"{_PREFIX}(?:validation|valid|val|dev)", rf"{_PREFIX}test"


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        contexts: what stands before each ending.
        endings: what is scored, without the space before it.
        answer: number of the right one.
        where: its file and line.
    """

    contexts: tuple[str, ...]
    endings: tuple[str, ...]
    answer: int
    where: str


@dataclass(frozen=True)
class Layout:
    """How a data set writes its questions.

    Attributes:
        name: the data set's.
        fields: what every question has; no two layouts have the same.
        read: contexts, endings and the right one's number from the values by field; `ValueError` with a predicate.
    """

    name: str
    fields: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], tuple[list[str], list[str], int]]


def _arc(row: Mapping[str, Any]) -> tuple[list[str], list[str], int]:
    choices = row["choices"]
    if not isinstance(choices, dict) or not {"text", "label"} <= choices.keys():
        raise ValueError(f"choices is {cut(choices)}; an object with the lists text and label is needed")
    endings, labels = _texts(choices["text"], "choices.text"), _texts(choices["label"], "choices.label")
    if len(endings) != len(labels):
        raise ValueError(f"choices has {len(endings)} texts and {len(labels)} labels")
    answer = str(row["answerKey"])
    if answer not in labels:
        raise ValueError(f"answerKey is {cut(answer)}; the labels of its choices are {named(labels)}")
    return [f"Question: {_text(row, 'question')}\nAnswer:"] * len(endings), endings, labels.index(answer)


def _hellaswag(row: Mapping[str, Any]) -> tuple[list[str], list[str], int]:
    endings = [_plain(ending) for ending in _texts(row["endings"], "endings")]
    context = _text(row, "ctx")
    if row.get("ctx_a") is not None and row.get("ctx_b") is not None:
        context = f"{_text(row, 'ctx_a')} {_text(row, 'ctx_b').capitalize()}"
    if row.get("activity_label") is not None:
        context = f"{_text(row, 'activity_label')}: {context}"
    return [_plain(context)] * len(endings), endings, _number(row, "label", range(len(endings)))


def _piqa(row: Mapping[str, Any]) -> tuple[list[str], list[str], int]:
    endings = [_text(row, "sol1"), _text(row, "sol2")]
    return [f"Question: {_text(row, 'goal')}\nAnswer:"] * 2, endings, _number(row, "label", range(2))


def _winogrande(row: Mapping[str, Any]) -> tuple[list[str], list[str], int]:
    before, blank, after = _text(row, "sentence").partition("_")
    if not blank or not after.strip():
        raise ValueError("sentence has no blank (_) with text after it, which is what is scored")
    contexts = [before + _text(row, name) for name in ("option1", "option2")]
    return contexts, [after.strip()] * 2, _number(row, "answer", range(1, 3))


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("ARC", ("question", "choices", "answerKey"), _arc),
        Layout("HellaSwag", ("ctx", "endings", "label"), _hellaswag),
        Layout("PIQA", ("goal", "sol1", "sol2", "label"), _piqa),
        Layout("WinoGrande", ("sentence", "option1", "option2", "answer"), _winogrande),
    )
}


@dataclass(frozen=True)
class ChoiceTask(Task):
    """Questions whose right ending a language model should find likelier than the others.

    Attributes:
        layout: of `LAYOUTS`; None: that of the file.
        judged: the split that is published with answers to be judged by.
        hub_revision: branch on the hub; None: its main one.
    """

    layout: str | None = None
    judged: str = "validation"
    hub_revision: str | None = None

    title: ClassVar[str] = "questions"
    head: ClassVar[str] = "CausalLM"
    pipeline: ClassVar[str] = "text-generation"
    module: ClassVar[str] = "splora.tasks.choices.ChoicesDataModule"
    length: ClassVar[int | None] = None
    causal: ClassVar[bool] = True
    trained: ClassVar[bool] = False
    classes: ClassVar[bool] = False
    outputs: ClassVar[Any] = "endings"
    takes: ClassVar[tuple[str, ...]] = ()

    def source(self, folder: Path, split: Split) -> str:
        """See `Task`: of evaluation the split that is published with answers, else the other."""
        judged = (_TEST, _VALID) if self.judged == "test" else (_VALID, _TEST)
        found = next(filter(None, (find_files(folder, stems, _TABLES) for stems in judged)), None)
        if split == "train":
            found = find_files(folder, _TRAIN, _TABLES)
        if not found:
            name, purpose = ("train", "to calibrate on") if split == "train" else ("validation", "to evaluate")
            raise InputError(
                f"{folder}: this folder has no {name}.jsonl or such; one is needed {purpose} {self.name}, and "
                f"{content_of(folder)}."
            )
        if len(found) > 1:
            raise InputError(f"{folder}: the questions of {self.name} are in {len(found)} shards; join them into one.")
        return str(found[0])


_METRICS, _NORMED = ("accuracy", "accuracy_norm"), ("accuracy_norm", "accuracy")
_TASKS = (
    ChoiceTask(name="choices", aliases=("multiplechoice",), metrics=_METRICS),
    ChoiceTask(
        "ARC", "test", name="arc_easy", aliases=("arce",), metrics=_METRICS, hub=("allenai/ai2_arc", "ARC-Easy")
    ),
    ChoiceTask(
        "ARC",
        "test",
        name="arc_challenge",
        aliases=("arcc",),
        metrics=_NORMED,
        hub=("allenai/ai2_arc", "ARC-Challenge"),
    ),
    ChoiceTask("HellaSwag", name="hellaswag", metrics=_NORMED, hub=("Rowan/hellaswag", None)),
    # The main branch holds a script, which `datasets` no longer runs; the hub keeps what it made as Parquet.
    ChoiceTask("PIQA", name="piqa", metrics=_METRICS, hub=("ybisk/piqa", None), hub_revision="refs/convert/parquet"),
    ChoiceTask("WinoGrande", name="winogrande", metrics=_METRICS, hub=("allenai/winogrande", "winogrande_xl")),
)
TASKS: dict[str, ChoiceTask] = {task.name: task for task in _TASKS}


def read_questions(source: str | None, task: str, split: Split, cache_dir: str | None = None) -> list[Question]:
    """The questions of a split.

    Args:
        source: a file or a folder; None: the hub.
        task: of `TASKS`.

    Raises:
        InputError: it cannot be read, or a question is none: with its line.
    """
    known = TASKS[task]
    if source is not None:
        path = expanded(source)
        return _questions(read_raw(known.source(path, split) if path.is_dir() else path), known)
    if known.hub is None:
        hubs = ", ".join(name for name, other in TASKS.items() if other.hub)
        raise InputError(f"task {task} needs a file or folder of questions (--data); of the hub there are {hubs}.")
    from splora.tasks.hub import load_dataset

    name, configuration = known.hub
    options = {"revision": known.hub_revision} if known.hub_revision else {}
    table = load_dataset(name, configuration, "train" if split == "train" else known.judged, cache_dir, **options)
    return _questions(raw_of_columns(name, {column: list(table[column]) for column in table.column_names}), known)


def _questions(raw: RawTable, task: ChoiceTask) -> list[Question]:
    header, found = [str(name) for name in raw.header], []
    first: Layout | None = None
    for number, cells in raw.rows:
        row = {name: cell for name, cell in zip(header, cells, strict=False) if cell is not None}
        own = next((layout for layout in LAYOUTS.values() if row.keys() >= {*layout.fields}), None)
        first = first or (LAYOUTS[task.layout] if task.layout else own)
        if first is None:
            known = "; ".join(f"{layout.name} ({', '.join(layout.fields)})" for layout in LAYOUTS.values())
            raise InputError(f"{raw.at(number)}: has {named(row)}; questions are written like those of {known}.")
        if own is not first:
            missing = [name for name in first.fields if name not in row]
            other = f" and is written like {own.name}'s" if own else ""
            wanted = f"{task.name} is" if task.layout else "the questions before it are"
            raise InputError(
                f"{raw.at(number)}: has no {' and no '.join(missing)}{other}; {wanted} written like {first.name}'s: "
                f"{', '.join(first.fields)}."
            )
        try:
            contexts, endings, answer = first.read(row)
            if len(endings) < 2:
                raise ValueError(f"has {len(endings)} endings; two at least are needed")
        except ValueError as error:
            raise InputError(f"{raw.at(number)}: {error}.") from None
        for text in (*contexts, *endings):
            check_text(text, f"{raw.at(number)}:")
        found.append(Question(tuple(contexts), tuple(endings), answer, raw.at(number)))
    if not found:
        raise InputError(f"{raw.where}: has no questions.")
    return found


def _plain(text: str) -> str:
    """HellaSwag's texts without the marks that WikiHow's have left in them."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _text(row: Mapping[str, Any], name: str) -> str:
    if not isinstance(row[name], str):
        raise ValueError(f"{name} is {kind(row[name])} where a text is needed")
    return str(row[name])


def _texts(value: Any, name: str) -> list[str]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name} is {cut(value)} where a list of texts is needed")
    odd = next((place for place, text in enumerate(value) if not isinstance(text, str) or not text.strip()), None)
    if odd is not None:
        raise ValueError(f"{name} has {cut(value[odd])} at place {odd + 1} where a text is needed")
    return list(value)


def _number(row: Mapping[str, Any], name: str, allowed: range) -> int:
    text = str(row[name]).strip()
    if isinstance(row[name], bool) or not text.isdecimal() or int(text) not in allowed:
        raise ValueError(f"{name} is {cut(row[name])}; allowed are {', '.join(map(str, allowed))}")
    return int(text) - allowed.start
