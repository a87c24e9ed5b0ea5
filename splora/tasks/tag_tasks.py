"""Tags of words: named entities in CoNLL's layout, or as lists of tokens and tags. Imports nothing heavy.

In CoNLL's layout a line is a word: columns between blanks, the first the word and the last its tag; an empty line ends
a sentence, and lines that begin with ``-DOCSTART-`` say nothing. Of JSON lines and Parquet, `tokens` and `ner_tags` are
lists of as many texts; where a data set carries names of its tags, numbers stand for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from splora.errors import InputError, cut, named
from splora.files import expanded
from splora.reading import CELL, ROW, Budget, check_text, read_lines
from splora.tasks.folders import content_of, find_files
from splora.tasks.table_files import RawTable, raw_of_columns, read_raw
from splora.tasks.task import Split, Task

_TABLES = (".jsonl", ".ndjson", ".json", ".parquet")
_CONLL = (".txt", ".conll", ".iob", ".iob2", ".bio", ".tsv")
_PREFIX = r"(?:.*[-_.])?"
_STEMS: dict[Split, tuple[str, ...]] = {
    "train": (rf"{_PREFIX}train", r"eng[.]train"),
    "eval": (rf"{_PREFIX}(?:validation|valid|val|dev)", rf"{_PREFIX}test", r"eng[.]testa"),
}
#: A tag: outside of all entities, or the beginning, inside, end or whole of one of a type.
TAG = re.compile(r"O|[BIES]-\S+")
#: Columns that hold tags.
_TAGS = ("ner_tags", "tags", "labels")
_BEGINS = "-DOCSTART-"
OUTSIDE = "O"


class Sentence(NamedTuple):
    """Words, their tags (none where they are not read), and the file and line of the first word."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    where: str


@dataclass(frozen=True)
class TagTask(Task):
    """Words that are tagged, judged by entity.

    Attributes:
        hub_revision: branch on the hub; None: its main one.
    """

    hub_revision: str | None = None

    title: ClassVar[str] = "sentences"
    head: ClassVar[str] = "TokenClassification"
    pipeline: ClassVar[str] = "token-classification"
    module: ClassVar[str] = "splora.tasks.tagging.TagDataModule"
    input: ClassVar[str] = "sentences.conll"

    def source(self, folder: Path, split: Split) -> str:
        """See `Task`."""
        endings = (*_CONLL, *_TABLES)
        found = next(filter(None, (find_files(folder, stem, (*endings, "")) for stem in _STEMS[split])), None)
        if not found:
            name, purpose = ("train", "to train") if split == "train" else ("dev", "to evaluate")
            raise InputError(
                f"{folder}: this folder has no {name}.conll, {name}.txt or {name}.jsonl; one is needed {purpose} "
                f"{self.name}, and {content_of(folder)}."
            )
        if len(found) > 1:
            raise InputError(f"{folder}: the sentences of {self.name} are in {len(found)} shards; join them into one.")
        return str(found[0])

    def count(self, source: str, split: Split, labelled: bool) -> int:
        """See `Task`."""
        return len(read_sentences(source, self.name, split, labelled))

    def check_names(self, name: str, config: Any) -> None:
        """See `Task`: any tags will do."""
        if tags_of(config) is None:
            shown = named(list((getattr(config, "id2label", None) or {}).values())[:5])
            raise InputError(
                f"{name}: its outputs are named {shown} in config.json, and {self.name} needs tags such as O, B-PER "
                f"and I-PER; give each output its tag in id2label, or pass a model that is fine-tuned on tags."
            )


_TASKS = (
    TagTask(
        name="ner",
        aliases=("conll", "conll2003", "conll03"),
        metrics=("f1", "precision", "recall"),
        # The main branch holds a script, which `datasets` no longer runs; the hub keeps what it made as Parquet.
        hub=("eriktks/conll2003", None),
        hub_revision="refs/convert/parquet",
    ),
)
TASKS: dict[str, TagTask] = {task.name: task for task in _TASKS}


def tags_of(config: Any) -> tuple[str, ...] | None:
    """The tags that a model's outputs are named by, in their order; None: they are named otherwise."""
    by_number = {int(number): str(label) for number, label in (getattr(config, "id2label", None) or {}).items()}
    tags = tuple(by_number[number] for number in sorted(by_number))
    whole = len({*tags}) == len(tags) and sorted(by_number) == list(range(len(tags)))
    return tags if tags and whole and all(TAG.fullmatch(tag) for tag in tags) else None


def read_sentences(
    source: str | None, task: str, split: Split, labelled: bool = True, cache_dir: str | None = None
) -> list[Sentence]:
    """The sentences of a split.

    Args:
        source: a file or a folder; a data set's name of the hub (`owner/name`); None: the task's on the hub.
        labelled: read the tags, which every word then has to have.

    Raises:
        InputError: they cannot be read, or a word has no tag, or one that is none: with its line.
    """
    from splora.tasks.source_names import EMBEDDED, is_data_set

    known = TASKS[task]
    if source == EMBEDDED:
        raise InputError(f"embedded: there are no sentences with tags among them; pass a file or folder for {task}.")
    if source is None or is_data_set(source):
        found = list(_of_table(_of_hub(known, source, split, cache_dir), labelled))
    else:
        path = expanded(source)
        path = Path(known.source(path, split)) if path.is_dir() else path
        table = path.name.lower().endswith(_TABLES)
        found = list(_of_table(read_raw(path), labelled) if table else _of_conll(path, labelled))
    if not found:
        raise InputError(f"{source or task}: has no sentences.")
    return found


def _of_conll(path: Path, labelled: bool) -> Iterator[Sentence]:
    budget, first = Budget(str(path)), 0
    words: list[str] = []
    tags: list[str] = []
    for number, line in read_lines(path):
        cells = line.split()
        if not cells or cells[0] == _BEGINS:
            if words:
                yield Sentence(tuple(words), tuple(tags), f"{path}: line {first}")
            words, tags = [], []
            continue
        budget.take(len(line) + ROW + CELL, f"line {number}")
        check_text(cells[0], f"{path}: line {number}:")
        if labelled:
            if len(cells) < 2:
                raise InputError(f"{path}: line {number}: the word {cut(cells[0])} has no tag beside it.")
            tags.append(_tag(cells[-1], f"{path}: line {number}"))
        first = number if not words else first
        words.append(cells[0])
    if words:
        yield Sentence(tuple(words), tuple(tags), f"{path}: line {first}")


def _of_table(raw: RawTable, labelled: bool) -> Iterator[Sentence]:
    header = [str(name) for name in raw.header]
    tag_column = next((name for name in _TAGS if name in header), None)
    missing = "tokens" if "tokens" not in header else "ner_tags" if labelled and tag_column is None else None
    if missing:
        raise InputError(f"{raw.where}: has no {missing}; it has {named(header)}.")
    names = raw.classes.get(tag_column or "", ())
    for number, cells in raw.rows:
        row = dict(zip(header, cells, strict=False))
        words = row["tokens"]
        if not isinstance(words, list) or not all(isinstance(word, str) and word.strip() for word in words):
            raise InputError(f"{raw.at(number)}: tokens is {cut(words)} where a list of words is needed.")
        for word in words:
            check_text(word, f"{raw.at(number)}:")
        tags = row[tag_column] if labelled and tag_column else []
        if labelled and (not isinstance(tags, list) or len(tags) != len(words)):
            told = f"{len(tags)} of them" if isinstance(tags, list) else cut(tags)
            raise InputError(f"{raw.at(number)}: has {len(words)} words, and {tag_column} is {told}.")
        if words:
            named_tags = tuple(_tag(_by_name(tag, names), raw.at(number)) for tag in tags)
            yield Sentence(tuple(words), named_tags, raw.at(number))


def _by_name(tag: Any, names: Sequence[str]) -> Any:
    """The name of a tag that is a number, where the data say it."""
    whole = isinstance(tag, int) and not isinstance(tag, bool)
    return names[tag] if whole and 0 <= tag < len(names) else tag


def _tag(tag: Any, where: str) -> str:
    if not isinstance(tag, str) or not TAG.fullmatch(tag):
        raise InputError(f"{where}: {cut(tag)} is no tag; tags are O, and names such as B-PER and I-PER.")
    return tag


def _of_hub(task: TagTask, source: str | None, split: Split, cache_dir: str | None) -> RawTable:
    from splora.tasks.hub import load_dataset

    assert task.hub is not None
    name, configuration = task.hub if source in (None, task.hub[0]) else (str(source), None)
    own = name == task.hub[0] and task.hub_revision
    options = {"revision": task.hub_revision} if own else {}
    table = load_dataset(name, configuration, "train" if split == "train" else "validation", cache_dir, **options)
    classes: dict[str, Sequence[str]] = {}
    for column, feature in (getattr(table, "features", None) or {}).items():
        inner = getattr(feature, "feature", feature)
        if getattr(inner, "names", None):
            classes[column] = list(inner.names)
    return raw_of_columns(name, {column: list(table[column]) for column in table.column_names}, classes)
