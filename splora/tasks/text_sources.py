"""Running text for language models: WikiText-2, Penn Treebank and C4 from files, the hub, or made by the program.

Perplexities can only be compared where text is joined alike. The conventions here are those of the GPTQ and OPT
literature (Frantar et al., arXiv 2210.17323, and the code around it):

- WikiText-2 (raw): records are lines with their line break, blank lines are empty records; joined by two line breaks.
- Penn Treebank: sentences without spaces at their ends, joined by a space.
- C4: documents joined by a space; to evaluate, the first 1,100 documents and the first 256 windows of them; to
  calibrate, windows from random places of the first `C4_TRAINING` documents.

In a text file a line is a record. Of JSON lines (also of Parquet, and compressed as `.gz`), `text` is a record as it
is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from splora.errors import InputError, cut, named
from splora.files import expanded
from splora.reading import CELL, Budget, check_text, read_lines
from splora.tasks.folders import content_of, find_files
from splora.tasks.table_files import RawTable, read_raw
from splora.tasks.task import Split, Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextTask(Task):
    """How the literature reads one corpus, whose next tokens language models predict.

    Attributes:
        separator: stands between records.
        splits: what the hub calls the two splits.
        hub_files: of the splits on the hub, where the whole would be too much.
        hub_revision: branch on the hub; None: its main one.
        keeps_breaks: records of a text file keep their line break, and blank lines are records.
        documents: records that are read of a split, the first ones; of a split without a number: all.
        windows: windows that are evaluated; None: all.
    """

    separator: str
    splits: dict[Split, str]
    hub_files: dict[Split, str] = field(default_factory=dict)
    hub_revision: str | None = None
    keeps_breaks: bool = False
    documents: dict[Split, int] = field(default_factory=dict)
    windows: int | None = None

    title: ClassVar[str] = "text"
    head: ClassVar[str] = "CausalLM"
    pipeline: ClassVar[str] = "text-generation"
    module: ClassVar[str] = "splora.tasks.language_modelling.TextDataModule"
    length: ClassVar[int | None] = None
    causal: ClassVar[bool] = True
    trained: ClassVar[bool] = False
    classes: ClassVar[bool] = False
    outputs: ClassVar[Any] = "losses"
    takes: ClassVar[tuple[str, ...]] = ()

    def source(self, folder: Path, split: Split) -> str:
        """See `Task`."""
        return text_source(folder, self.name, split)


#: Documents that calibration draws its windows from. A shard of C4 has 356,000, which would be joined and tokenized as
#: one string for the sake of 128 windows. The literature draws as many documents from the whole shard at random, and a
#: window of each. The first ones are as good a sample, since C4 lies in no order of its content, and the rest of the
#: file need not be read for them; which windows they give is random still. They hold over 4 million tokens, more than
#: WikiText-2's training text and some 16 times what 128 windows of 2,048 tokens take.
C4_TRAINING = 10_000

_SPLITS: dict[Split, str] = {"train": "train", "eval": "test"}
_TASKS = (
    TextTask(
        "\n\n",
        _SPLITS,
        name="wikitext2",
        aliases=("wikitext", "wikitext2raw", "wikitext2rawv1"),
        metrics=("perplexity",),
        hub=("Salesforce/wikitext", "wikitext-2-raw-v1"),
        keeps_breaks=True,
    ),
    # The main branch holds a script, which `datasets` no longer runs. The hub keeps what the script made as Parquet in
    # a branch, where the only configuration has no name.
    TextTask(
        " ",
        _SPLITS,
        name="ptb",
        aliases=("penntreebank",),
        metrics=("perplexity",),
        hub=("ptb-text-only/ptb_text_only", None),
        hub_revision="refs/convert/parquet",
    ),
    TextTask(
        " ",
        {"train": "train", "eval": "validation"},
        {"train": "en/c4-train.00000-of-01024.json.gz", "eval": "en/c4-validation.00000-of-00008.json.gz"},
        name="c4",
        metrics=("perplexity",),
        hub=("allenai/c4", None),
        documents={"train": C4_TRAINING, "eval": 1100},
        windows=256,
    ),
)
TEXT_TASKS: dict[str, TextTask] = {task.name: task for task in _TASKS}

#: Names of the column or key that holds the text.
COLUMNS = ("text", "sentence")
_TEXTS = (".txt", ".tokens", ".raw")
_TABLES = (".jsonl", ".ndjson", ".json", ".parquet", ".jsonl.gz", ".json.gz")
_ENDINGS = (*_TEXTS, *_TABLES)
#: Regular expressions of file names: of the corpora as they are published, and plain ones.
_PREFIX, _SHARD = r"(?:(?:wiki|ptb)[.]|c4-)?", r"(?:[.]\d{5}-of-\d{5})?"
_STEMS = {name: rf"{_PREFIX}(?:{names}){_SHARD}" for name, names in (
    ("train", "train|training"), ("valid", "valid|validation|val|dev"), ("test", "test"),
)}  # fmt: skip


def find_text(folder: Path, split: Split) -> Path | None:
    """The file of a split in a folder: `train.txt`, `wiki.train.tokens`, `ptb.test.txt`, `valid.jsonl` and the like.

    The evaluation text is `test`, else `valid`. The calibration text is `train`; where there is none, `valid` unless
    that is evaluated on.

    Returns:
        None: there is no such file.

    Raises:
        InputError: more than one file could be meant.
    """
    found = {name: find_files(folder, stems, _ENDINGS) for name, stems in _STEMS.items()}
    evaluated = "test" if found["test"] else "valid"
    if split == "eval":
        return _first(found[evaluated])
    if found["train"] or evaluated == "valid":
        return _first(found["train"])
    return _first(found["valid"])


def text_source(folder: Path, task: str, split: Split) -> str:
    """The file of a split, as `read_text` takes it.

    Raises:
        InputError: the folder has none.
    """
    path = find_text(folder, split)
    if path is None:
        names = "train.txt, wiki.train.tokens or train.jsonl" if split == "train" else "test.txt, valid.txt or such"
        purpose = "to calibrate on" if split == "train" else "to evaluate"
        raise InputError(f"{folder}: this folder has no {names}; one is needed {purpose} {task}; {content_of(folder)}.")
    return str(path)


def read_text(source: str | None, task: str, split: Split, cache_dir: str | None = None) -> str:
    """The text of a split as one string; of C4, that of its first documents.

    Args:
        source: a file; a folder of them; `embedded`; None: the hub.
        task: of `TEXT_TASKS`.

    Raises:
        InputError: there is no such file, it is not UTF-8, empty, or has no texts; or the hub cannot be reached.
    """
    description = TEXT_TASKS[task]
    records = _records(source, task, split, cache_dir)
    return description.separator.join(islice(records, description.documents.get(split)))


def _records(source: str | None, task: str, split: Split, cache_dir: str | None) -> Iterable[str]:
    description = TEXT_TASKS[task]
    if source is None:
        return _hub_records(description, split, cache_dir)
    if source == "embedded":
        from splora.tasks.embedded.text import paragraphs

        return paragraphs("train" if split == "train" else "dev")
    path = expanded(source)
    if path.is_dir():
        path = Path(text_source(path, task, split))
    if split == "train" and _stands_in(path):
        logger.warning("%s: there is no training text beside it, so this is what calibration uses.", path)
    if path.name.lower().endswith(_TABLES):
        return _cells(read_raw(path, description.documents.get(split)), path)
    lines = _lines(path)
    if description.keeps_breaks:
        return [line + "\n" if line.strip() else "" for line in lines]
    return [line.strip() for line in lines if line.strip()]


def _stands_in(path: Path) -> bool:
    """Whether this is the validation text of a folder that has a text to evaluate on, but none to train on."""
    try:
        return not find_files(path.parent, _STEMS["train"], _ENDINGS) and find_text(path.parent, "train") == path
    except InputError:
        return False  # The file was named, so that nothing depends on what else lies beside it.


def _hub_records(description: TextTask, split: Split, cache_dir: str | None) -> Iterable[str]:
    from splora.tasks.hub import load_dataset

    assert description.hub is not None
    name, configuration = description.hub
    on_hub, files = description.splits[split], description.hub_files.get(split)
    options: dict[str, Any] = {}
    if files:
        # One file of many has not the size that the hub gives for the whole.
        options |= {"data_files": {on_hub: files}, "verification_mode": "no_checks"}
    if description.hub_revision:
        options["revision"] = description.hub_revision
    table = load_dataset(name, configuration, on_hub, cache_dir, **options)
    column = next((column for column in COLUMNS if column in table.column_names), None)
    if column is None:
        raise InputError(f"{name}: has no column {' or '.join(COLUMNS)}; it has {', '.join(table.column_names)}.")
    most = description.documents.get(split)
    if most is not None:
        table = table.select(range(min(most, len(table))))
    return list(table[column])


def _lines(path: Path) -> list[str]:
    # Not `splitlines`, which would also break at signs that are part of a text; the last line break ends a line.
    lines: list[str] = []
    budget = Budget(str(path))
    for number, line in read_lines(path):
        budget.take(len(line) + CELL, f"line {number}")
        check_text(line, f"{path}: line {number}:")
        lines.append(line.removesuffix("\n").removesuffix("\r"))
    if not any(line.strip() for line in lines):
        raise InputError(f"{path}: is empty.")
    return lines


def _cells(table: RawTable, path: Path) -> list[str]:
    column = next((number for number, name in enumerate(table.header) if name in COLUMNS), None)
    if column is None:
        raise InputError(f"{path}: has no {' or '.join(COLUMNS)}; it has {named(table.header)}.")
    for number, cells in table.rows:
        if not isinstance(cells[column], str):
            raise InputError(
                f"{table.at(number)}: {table.header[column]} is {cut(cells[column])} where a text is needed."
            )
        check_text(cells[column], f"{table.at(number)}:")
    return [cells[column] for _, cells in table.rows]


def _first(paths: list[Path]) -> Path | None:
    return paths[0] if paths else None
